# Kinfold for Nix: pkgs.callPackage ./packaging/nix/package.nix { }. Not run by the tests, which only read it: Nix is
# not there. Versions and checksums of all crates come from Cargo.lock, so nothing here has to be kept up with it.
{
  lib,
  rustPlatform,
  git,
}:

let
  manifest = lib.importTOML ../../Cargo.toml;
in
rustPlatform.buildRustPackage {
  pname = manifest.package.name;
  version = manifest.package.version;

  src = lib.cleanSource ../..;
  cargoLock.lockFile = ../../Cargo.lock;

  nativeCheckInputs = [ git ];
  # The other tests want real sockets, a home and systemd.
  cargoTestFlags = [ "--lib" ];

  postInstall = ''
    staged=$(mktemp -d)
    patchShebangs packaging/install.sh
    packaging/install.sh "$out/bin/kinfold" "$staged"
    rm "$staged/usr/bin/kinfold"
    cp -r "$staged/usr/." "$out/"
    sed -i "s,/usr/bin/kinfold,$out/bin/kinfold," "$out"/lib/systemd/*/kinfold*.service
  '';

  meta = {
    inherit (manifest.package) description;
    license = with lib.licenses; [
      mit
      asl20
    ];
    mainProgram = "kinfold";
    platforms = lib.platforms.linux;
  };
}
