//! Several devices with the real engine on simulated disks and networks, all from one seed.
//!
//! People write, rename and delete at any moment; connections are cut, devices crash and come back.
//! In the end everything is connected, and the oracle asks: are all trees equal, is everything still
//! there that nobody knowingly replaced, did each conflict make just as many copies as it must, and do
//! the devices say the truth about being in sync?
//!
//! `SIM_SEED=n` plays one seed, `SIM_RUNS=n` that many; a failing seed prints its trace with `SIM_TRACE=1`.

mod disk;
mod world;

use world::World;

fn runs(default: u64) -> u64 {
    std::env::var("SIM_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn clusters_converge_and_lose_nothing() {
    if let Some(seed) = std::env::var("SIM_SEED").ok().and_then(|text| text.parse().ok()) {
        return World::play(seed);
    }
    for seed in 0..runs(2000) {
        World::play(seed);
    }
}
