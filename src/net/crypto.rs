//! The cryptography of the tunnel: aws-lc-rs for ciphers, hashes, ML-KEM and randomness, x25519-dalek
//! for Diffie-Hellman.
//!
//! snow is built without cryptography of its own. Compared with what it would bring: AES-GCM runs ten
//! times as fast, for the key schedule is made once a key; a Diffie-Hellman result of all zeros, which a
//! hostile key can force, is refused; and keys are wiped when they are dropped.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest;
use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{BoxedCryptoResolver, CryptoResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::engine::session::handshake::{Decapsulate, KEM_CIPHERTEXT_LEN, KEM_KEY_LEN, KemError, Primitives};

/// The primitives that the program runs with.
#[derive(Clone, Copy, Debug)]
pub struct SystemPrimitives;

impl Primitives for SystemPrimitives {
    fn resolver(&self) -> BoxedCryptoResolver {
        Box::new(Resolver)
    }

    fn kem_generate(&self) -> Result<(Box<dyn Decapsulate>, [u8; KEM_KEY_LEN]), KemError> {
        let key = DecapsulationKey::generate(&ML_KEM_768).map_err(|_| KemError)?;
        let public = key.encapsulation_key().and_then(|public| public.key_bytes()).map_err(|_| KemError)?;
        let public = public.as_ref().try_into().map_err(|_| KemError)?;
        Ok((Box::new(KemKey(key)), public))
    }

    fn kem_encapsulate(
        &self,
        key: &[u8; KEM_KEY_LEN],
    ) -> Result<([u8; KEM_CIPHERTEXT_LEN], Zeroizing<[u8; 32]>), KemError> {
        let key = EncapsulationKey::new(&ML_KEM_768, key).map_err(|_| KemError)?;
        let (ciphertext, secret) = key.encapsulate().map_err(|_| KemError)?;
        Ok((ciphertext.as_ref().try_into().map_err(|_| KemError)?, secret_of(secret.as_ref())?))
    }
}

struct KemKey(DecapsulationKey);

impl Decapsulate for KemKey {
    fn decapsulate(self: Box<Self>, ciphertext: &[u8; KEM_CIPHERTEXT_LEN]) -> Result<Zeroizing<[u8; 32]>, KemError> {
        let secret = self.0.decapsulate(Ciphertext::from(ciphertext.as_slice())).map_err(|_| KemError)?;
        secret_of(secret.as_ref())
    }
}

fn secret_of(bytes: &[u8]) -> Result<Zeroizing<[u8; 32]>, KemError> {
    Ok(Zeroizing::new(bytes.try_into().map_err(|_| KemError)?))
}

/// Returns whether this processor has instructions for AES-GCM.
pub fn has_aes_hardware() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// Resolves what the suites are made of, and nothing else.
struct Resolver;

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(SystemRandom))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::new(X25519::from_secret(StaticSecret::from([0; 32])))),
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        match choice {
            HashChoice::SHA256 => Some(Box::new(Sha256(digest::Context::new(&digest::SHA256)))),
            _ => None,
        }
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        match choice {
            CipherChoice::AESGCM => Some(Box::new(Aead {
                name: "AESGCM",
                algorithm: &aead::AES_256_GCM,
                nonce_bytes: u64::to_be_bytes,
                key: None,
            })),
            CipherChoice::ChaChaPoly => Some(Box::new(Aead {
                name: "ChaChaPoly",
                algorithm: &aead::CHACHA20_POLY1305,
                nonce_bytes: u64::to_le_bytes,
                key: None,
            })),
        }
    }
}

struct SystemRandom;

impl Random for SystemRandom {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), snow::Error> {
        aws_lc_rs::rand::fill(out).map_err(|_| snow::Error::Rng)
    }
}

/// X25519 (RFC 7748). The secret wipes itself on drop.
struct X25519 {
    secret: StaticSecret,
    public: PublicKey,
}

impl X25519 {
    fn from_secret(secret: StaticSecret) -> Self {
        let public = PublicKey::from(&secret);
        Self { secret, public }
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, private: &[u8]) {
        let private = Zeroizing::new(<[u8; 32]>::try_from(private).expect("the handshake hands in arrays of 32 bytes"));
        *self = Self::from_secret(StaticSecret::from(*private));
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), snow::Error> {
        let mut private = Zeroizing::new([0; 32]);
        random.try_fill_bytes(private.as_mut_slice())?;
        *self = Self::from_secret(StaticSecret::from(*private));
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn privkey(&self) -> &[u8] {
        self.secret.as_bytes()
    }

    /// snow hands in a buffer as long as the longest key of any curve; the first 32 bytes are ours.
    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let public = *public.first_chunk::<32>().ok_or(snow::Error::Dh)?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(public));
        if !shared.was_contributory() {
            return Err(snow::Error::Dh);
        }
        out.get_mut(..32).ok_or(snow::Error::Dh)?.copy_from_slice(shared.as_bytes());
        Ok(())
    }
}

struct Sha256(digest::Context);

impl Hash for Sha256 {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0 = digest::Context::new(&digest::SHA256);
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        out[..32].copy_from_slice(self.0.clone().finish().as_ref());
    }
}

/// An AEAD whose key schedule is made once a key. aws-lc wipes it when it is freed.
struct Aead {
    name: &'static str,
    algorithm: &'static aead::Algorithm,
    /// AES-GCM counts big-endian, ChaChaPoly little-endian (Noise specification, section 12).
    nonce_bytes: fn(u64) -> [u8; 8],
    key: Option<LessSafeKey>,
}

const MAC_LEN: usize = 16;

impl Aead {
    fn key(&self) -> &LessSafeKey {
        self.key.as_ref().expect("snow asks for nothing before it has set a key")
    }

    fn nonce(&self, nonce: u64) -> Nonce {
        let mut bytes = [0; aead::NONCE_LEN];
        bytes[4..].copy_from_slice(&(self.nonce_bytes)(nonce));
        Nonce::assume_unique_for_key(bytes)
    }
}

impl Cipher for Aead {
    fn name(&self) -> &'static str {
        self.name
    }

    fn set(&mut self, key: &[u8; 32]) {
        let key = UnboundKey::new(self.algorithm, key).expect("both ciphers have keys of 32 bytes");
        self.key = Some(LessSafeKey::new(key));
    }

    fn encrypt(&self, nonce: u64, ad: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let (ciphertext, rest) = out.split_at_mut(plaintext.len());
        self.key()
            .seal_out_of_place_scatter(
                self.nonce(nonce),
                Aad::from(ad),
                plaintext,
                ciphertext,
                &[],
                &mut rest[..MAC_LEN],
            )
            .expect("the lengths fit, and nothing else is ever refused");
        plaintext.len() + MAC_LEN
    }

    fn decrypt(&self, nonce: u64, ad: &[u8], message: &[u8], out: &mut [u8]) -> Result<usize, snow::Error> {
        let (ciphertext, mac) = message.split_last_chunk::<MAC_LEN>().ok_or(snow::Error::Decrypt)?;
        let plaintext = out.get_mut(..ciphertext.len()).ok_or(snow::Error::Decrypt)?;
        self.key()
            .open_separate_gather(self.nonce(nonce), Aad::from(ad), ciphertext, mac, plaintext)
            .map_err(|_| snow::Error::Decrypt)?;
        Ok(ciphertext.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use snow::{Builder, HandshakeState};

    fn hex(value: &Value) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
    }

    /// Builds one end of a vector; `side` is `init` or `resp`.
    fn end_of(vector: &Value, side: &str) -> HandshakeState {
        let params = vector["protocol_name"].as_str().unwrap().parse().unwrap();
        let part = |name: &str| vector.get(format!("{side}_{name}")).map(hex);
        let (prologue, ephemeral) = (part("prologue").unwrap(), part("ephemeral").unwrap());
        let (own, remote) = (part("static"), part("remote_static"));
        let psk: Option<[u8; 32]> = vector.get(format!("{side}_psks")).map(|psks| hex(&psks[0]).try_into().unwrap());
        let mut builder = Builder::with_resolver(params, Box::new(Resolver))
            .prologue(&prologue)
            .unwrap()
            .fixed_ephemeral_key_for_testing_only(&ephemeral);
        if let Some(own) = &own {
            builder = builder.local_private_key(own).unwrap();
        }
        if let Some(remote) = &remote {
            builder = builder.remote_public_key(remote).unwrap();
        }
        if let Some(psk) = &psk {
            builder = builder.psk(3, psk).unwrap();
        }
        if side == "init" { builder.build_initiator().unwrap() } else { builder.build_responder().unwrap() }
    }

    fn check_vector(vector: &Value) {
        let (mut from, mut to) = (end_of(vector, "init"), end_of(vector, "resp"));
        let mut messages = vector["messages"].as_array().unwrap().iter();
        let (mut out, mut back) = ([0; 1024], [0; 1024]);
        while !from.is_handshake_finished() {
            let message = messages.next().unwrap();
            let (payload, expected) = (hex(&message["payload"]), hex(&message["ciphertext"]));
            let len = from.write_message(&payload, &mut out).unwrap();
            assert_eq!(out[..len], expected);
            let len = to.read_message(&expected, &mut back).unwrap();
            assert_eq!(back[..len], payload);
            (from, to) = (to, from);
        }
        assert_eq!(from.get_handshake_hash(), hex(&vector["handshake_hash"]));
        let mut ends = [from.into_stateless_transport_mode().unwrap(), to.into_stateless_transport_mode().unwrap()];
        // The transport messages of a vector go on in turn where its handshake stopped.
        let mut nonces = [0, 0];
        for message in messages {
            let (payload, expected) = (hex(&message["payload"]), hex(&message["ciphertext"]));
            let nonce = nonces[0];
            let len = ends[0].write_message(nonce, &payload, &mut out).unwrap();
            assert_eq!(out[..len], expected);
            let len = ends[1].read_message(nonce, &expected, &mut back).unwrap();
            assert_eq!(back[..len], payload);
            nonces[0] += 1;
            ends.swap(0, 1);
            nonces.swap(0, 1);
        }
    }

    #[test]
    fn the_vectors_of_another_implementation_come_out_the_same() {
        let file: Value = serde_json::from_str(include_str!("../../tests/fixtures/noise_vectors.json")).unwrap();
        let vectors = file["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), 12);
        for vector in vectors {
            check_vector(vector);
        }
    }

    #[test]
    fn a_diffie_hellman_of_all_zeros_is_refused() {
        let dh = X25519::from_secret(StaticSecret::from([7; 32]));
        let mut out = [0; 32];
        // The neutral element, a point of order eight, and the neutral element written as the prime.
        let small_order = data_encoding::HEXLOWER
            .decode(b"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")
            .unwrap();
        let mut prime = [0xff; 32];
        prime[0] = 0xed;
        prime[31] = 0x7f;
        for key in [[0; 32].as_slice(), &small_order, &prime] {
            assert_eq!(dh.dh(key, &mut out), Err(snow::Error::Dh));
        }
        assert_eq!(dh.dh(&[9; 31], &mut out), Err(snow::Error::Dh));
        assert_eq!(out, [0; 32]);
        assert_eq!(dh.dh(X25519::from_secret(StaticSecret::from([8; 32])).pubkey(), &mut out), Ok(()));
    }

    #[test]
    fn a_cipher_opens_only_what_it_sealed_under_the_same_nonce_and_data() {
        let mut cipher = Resolver.resolve_cipher(&CipherChoice::AESGCM).unwrap();
        cipher.set(&[1; 32]);
        let mut sealed = [0; 21];
        assert_eq!(cipher.encrypt(0, b"ad", b"hello", &mut sealed), 21);
        let mut out = [0; 5];
        assert_eq!(cipher.decrypt(0, b"ad", &sealed, &mut out), Ok(5));
        assert_eq!(&out, b"hello");
        assert!(cipher.decrypt(1, b"ad", &sealed, &mut out).is_err());
        assert!(cipher.decrypt(0, b"", &sealed, &mut out).is_err());
        assert!(cipher.decrypt(0, b"ad", &sealed[..15], &mut out).is_err());
        assert!(cipher.decrypt(0, b"ad", &sealed, &mut out[..4]).is_err());
    }

    #[test]
    fn both_ends_of_the_kem_have_the_same_secret() {
        let (secret, public) = SystemPrimitives.kem_generate().unwrap();
        let (ciphertext, ours) = SystemPrimitives.kem_encapsulate(&public).unwrap();
        assert_eq!(secret.decapsulate(&ciphertext).unwrap(), ours);
        // A coefficient above the modulus: FIPS 203, section 7.2, has it refused.
        assert!(SystemPrimitives.kem_encapsulate(&[0xff; KEM_KEY_LEN]).is_err());
    }

    #[test]
    fn a_tampered_kem_ciphertext_gives_another_secret() {
        let (secret, public) = SystemPrimitives.kem_generate().unwrap();
        let (mut ciphertext, ours) = SystemPrimitives.kem_encapsulate(&public).unwrap();
        ciphertext[0] ^= 1;
        assert_ne!(secret.decapsulate(&ciphertext).unwrap(), ours);
    }
}
