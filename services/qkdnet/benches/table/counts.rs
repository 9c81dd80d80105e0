//! One link at the fidelity of counts with everything behind it: distillation at both ends, two key stores, disks. And
//! what each stage of it costs alone, in nanoseconds of one core per sifted bit, both ends together.

use std::hint::black_box;
use std::path::{Path, PathBuf};

use distill::amplify;
use distill::bits::Bits;
use distill::cascade::Parameters;
use distill::hash::frame_tag;
use photonics::nature::counts::{Emitter, Half};
use photonics::random::Subseed;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use topology::plan::counts::Told;
use topology::plan::{Nature, RunOptions, plan};

use crate::network::children_cpu_s;
use crate::{flip, random_bits, reconcile, row, run, seconds};

const BARS_MBIT: [f64; 2] = [13.7, 115.0];
const SIMULATED: &str = "10s";
/// Sifted bits on which a stage is measured, and their frames in Cascade.
const SIFTED_BITS: usize = 1 << 25;
const FRAME_BITS: usize = 1 << 16;
const QBER: f64 = 0.004;
/// Of the sifted bits, as `qkdnet plan` expects it of the link.
const SECRET_SHARE: f64 = 0.92;

pub fn counts() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/table/fast-link.yaml");
    let stages_ns = [("the light", light_ns(&file)), ("Cascade", cascade_ns())].into_iter();
    let stages_ns = stages_ns.chain([("verification", verification_ns()), ("amplification", amplification_ns())]);
    let mut alone_ns = 0.0;
    for (stage, ns) in stages_ns {
        row(&format!("at counts, {stage}, per sifted bit"), format!("{ns:.2} ns"), "");
        alone_ns += ns;
    }
    let before_s = children_cpu_s().expect("what children have cost");
    let summary = run(&file, "tasks", SIMULATED);
    let cpu_s = children_cpu_s().expect("what children have cost") - before_s;
    let link = &summary["links"][0];
    let number = |value: &serde_json::Value| value.as_f64().unwrap_or(f64::NAN);
    let (wall_s, simulated_s) = (number(&summary["wall_s"]), number(&summary["simulated_s"]));
    let secret_mbit = number(&link["key_bits"]) * 1e-6;
    let sifted = secret_mbit * 1e6 / SECRET_SHARE;
    let rest_ns = cpu_s * 1e9 / sifted - alone_ns;
    row("at counts, everything else, per sifted bit", format!("{rest_ns:.2} ns"), "");
    let all_ns = cpu_s * 1e9 / sifted;
    row("at counts, all of it, per sifted bit", format!("{all_ns:.2} ns"), "16 ns is 115 Mbit/s on 2 cores");
    let rate = secret_mbit / wall_s;
    let verdicts = BARS_MBIT.map(|bar| format!("> {bar}: {}", if rate > bar { "met" } else { "MISSED" }));
    row("at counts, one link, secret bits until they are stored", format!("{rate:.1} Mbit/s"), &verdicts.join(", "));
    row(&format!("  CPU time of {simulated_s:.0} simulated seconds"), format!("{cpu_s:.1} s"), "");
    row("  cores that were busy", format!("{:.2}", cpu_s / wall_s), "");
}

fn light_ns(file: &Path) -> f64 {
    let bytes = std::fs::read(file).expect("read the link");
    let document = topology::parse("fast-link.yaml", &bytes).expect("a good topology");
    let plan = plan(&document.topology, &RunOptions { seed: Some(1), ..RunOptions::default() });
    let source = plan.sources().next().expect("a source");
    let Nature::Counts(counts) = &source.nature else { panic!("a link at counts") };
    let told = Told {
        t_s: 0.0,
        losses_db: &source.losses_db(),
        added_db: [0.0; 2],
        pump: 1.0,
        phases_rad: [0.0; 2],
        polarisations_rad: [[0.0; 2]; 2],
    };
    let law = counts.law(&counts.conditions(&told)).expect("the law of the link");
    let emitter = Emitter::new(law, source.epoch_ps, &Subseed::new([1; 32]));
    let (slices, mut bits) = (emitter.slices(), 0);
    let spent_s = seconds(|| {
        for epoch in 0.. {
            for number in 0..slices {
                let halves = emitter.slice(epoch, number, slices).halves;
                bits += halves[0].key.len;
                let read = halves.map(|half| Half::decode(&half.encode()).expect("its own bytes"));
                black_box(read);
            }
            if bits >= SIFTED_BITS / 8 {
                break;
            }
        }
    });
    spent_s * 1e9 / bits as f64
}

fn cascade_ns() -> f64 {
    let mut rng = ChaCha20Rng::from_seed([9; 32]);
    let truth: Vec<Bits> = (0..SIFTED_BITS / FRAME_BITS / 8).map(|_| random_bits(FRAME_BITS, &mut rng)).collect();
    let noisy: Vec<Bits> = truth.iter().map(|frame| flip(frame, QBER, &mut rng)).collect();
    let bits = truth.len() * FRAME_BITS;
    let spent_s = seconds(|| {
        black_box(reconcile(truth, noisy, &Parameters { qber: QBER, seed: 1 }));
    });
    spent_s * 1e9 / bits as f64
}

/// Both ends hash every frame.
fn verification_ns() -> f64 {
    let frame = random_bits(FRAME_BITS, &mut ChaCha20Rng::from_seed([3; 32]));
    let frames = SIFTED_BITS / FRAME_BITS;
    let spent_s = seconds(|| {
        for key in 0..frames as u64 {
            black_box(frame_tag(black_box(&frame), key));
        }
    });
    2.0 * spent_s * 1e9 / (frames * FRAME_BITS) as f64
}

/// Of both ends, of a round as long as the link's.
fn amplification_ns() -> f64 {
    let mut rng = ChaCha20Rng::from_seed([4; 32]);
    let secret = (SIFTED_BITS as f64 * SECRET_SHARE) as usize;
    let seed_len = amplify::hash_seed_len(SIFTED_BITS, secret);
    let (key, seed) = (random_bits(SIFTED_BITS, &mut rng), random_bits(seed_len, &mut rng));
    let spent_s = seconds(|| {
        black_box(amplify::hash(&key, &seed, secret));
    });
    2.0 * spent_s * 1e9 / SIFTED_BITS as f64
}
