//! The two cipher suites, and which one a dialing device takes.

/// A cipher suite of the tunnel: AES-256-GCM or ChaCha20-Poly1305, the rest is the same in both.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Suite {
    /// AES-256-GCM: by far the faster one where both processors have instructions for it.
    AesGcm,
    /// ChaCha20-Poly1305: the faster one, and the one that runs in constant time, where one has not.
    ChaChaPoly,
}

impl Suite {
    /// Every suite, in the order in which a responder tries them.
    pub const ALL: [Self; 2] = [Self::AesGcm, Self::ChaChaPoly];

    /// Returns the suite to dial with.
    ///
    /// `peer_has_aes` is what the peer said in the last session, `None` where there was none.
    pub fn preferred(have_aes: bool, peer_has_aes: Option<bool>) -> Self {
        if have_aes && peer_has_aes.unwrap_or(true) { Self::AesGcm } else { Self::ChaChaPoly }
    }

    /// Returns the full name of the Noise protocol.
    pub const fn noise_name(self) -> &'static str {
        match self {
            Self::AesGcm => "Noise_XKpsk3_25519_AESGCM_SHA256",
            Self::ChaChaPoly => "Noise_XKpsk3_25519_ChaChaPoly_SHA256",
        }
    }

    /// Returns the number that stands for the suite in what is hashed; it is never sent.
    pub const fn code(self) -> u8 {
        match self {
            Self::AesGcm => 1,
            Self::ChaChaPoly => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aes_is_taken_unless_somebody_lacks_it() {
        assert_eq!(Suite::preferred(true, None), Suite::AesGcm);
        assert_eq!(Suite::preferred(true, Some(true)), Suite::AesGcm);
        assert_eq!(Suite::preferred(true, Some(false)), Suite::ChaChaPoly);
        assert_eq!(Suite::preferred(false, None), Suite::ChaChaPoly);
        assert_eq!(Suite::preferred(false, Some(true)), Suite::ChaChaPoly);
    }
}
