//! One link at the fidelity of counts with everything behind it: distillation at both ends, two key stores, disks. And
//! what each stage of it costs by itself: CPU time per sifted bit, both ends together, while every core is busy with that
//! stage, because cores that share caches are slower together than alone.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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

use crate::network::{children_cpu_s, own_cpu_s};
use crate::{flip, random_bits, reconcile, row, run};

const BARS_MBIT: [f64; 2] = [13.7, 115.0];
const SIMULATED: &str = "10s";
/// How long a stage is measured.
const MEASURED: Duration = Duration::from_secs(1);
/// Sifted bits of a round of the link, about, and their frames in Cascade.
const ROUND_BITS: usize = 1 << 23;
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
        row(&format!("at counts, {stage}, CPU per sifted bit"), format!("{ns:.2} ns"), "");
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
    row("at counts, everything else, CPU per sifted bit", format!("{rest_ns:.2} ns"), "");
    let all_ns = cpu_s * 1e9 / sifted;
    row(
        "at counts, all of it, CPU per sifted bit",
        format!("{all_ns:.2} ns"),
        "16 ns is 115 Mbit/s on 2 cores that are never idle",
    );
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
    let slices = emitter.slices();
    cpu_ns_per_bit(|| {
        let each = (0..slices).map(|number| {
            let halves = emitter.slice(0, number, slices).halves;
            let bits = halves[0].key.len;
            black_box(halves.map(|half| Half::decode(&half.encode()).expect("its own bytes")));
            bits
        });
        each.sum()
    })
}

fn cascade_ns() -> f64 {
    let mut rng = ChaCha20Rng::from_seed([9; 32]);
    let truth: Vec<Bits> = (0..ROUND_BITS / FRAME_BITS).map(|_| random_bits(FRAME_BITS, &mut rng)).collect();
    let noisy: Vec<Bits> = truth.iter().map(|frame| flip(frame, QBER, &mut rng)).collect();
    cpu_ns_per_bit(|| {
        black_box(reconcile(truth.clone(), noisy.clone(), &Parameters { qber: QBER, seed: 1 }));
        truth.len() * FRAME_BITS
    })
}

/// Both ends hash every frame.
fn verification_ns() -> f64 {
    let frame = random_bits(FRAME_BITS, &mut ChaCha20Rng::from_seed([3; 32]));
    2.0 * cpu_ns_per_bit(|| {
        black_box(frame_tag(black_box(&frame), 7));
        FRAME_BITS
    })
}

/// Of both ends, of a round as long as the link's.
fn amplification_ns() -> f64 {
    let mut rng = ChaCha20Rng::from_seed([4; 32]);
    let secret = (ROUND_BITS as f64 * SECRET_SHARE) as usize;
    let seed_len = amplify::hash_seed_len(ROUND_BITS, secret);
    let (key, seed) = (random_bits(ROUND_BITS, &mut rng), random_bits(seed_len, &mut rng));
    2.0 * cpu_ns_per_bit(|| {
        black_box(amplify::hash(&key, &seed, secret));
        ROUND_BITS
    })
}

/// CPU time of a stage, which says of how many bits it was, by every core at once.
fn cpu_ns_per_bit(stage: impl Fn() -> usize + Sync) -> f64 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let before_s = own_cpu_s().expect("what this process has cost");
    let work = || {
        let (begun, mut bits) = (Instant::now(), 0);
        while begun.elapsed() < MEASURED {
            bits += stage();
        }
        bits
    };
    let bits: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a stage")).sum()
    });
    let spent_s = own_cpu_s().expect("what this process has cost") - before_s;
    spent_s * 1e9 / bits as f64
}
