//! One table of what the project must reach, measured in one run: `make bench`.
//!
//! Times are the best of a few runs of one thread on the values of the 50 km link, so that what else the machine does
//! spoils them least; the whole link and its memory are measured by running the binary. `make bench` gives the memory
//! run ten simulated minutes; `QKDNET_BENCH_SIMULATED_S=3600` makes it an hour.

#[path = "table/client.rs"]
mod client;
#[path = "table/counts.rs"]
mod counts;
#[path = "table/flood.rs"]
mod flood;
#[path = "table/memory.rs"]
mod memory;
#[path = "table/network.rs"]
mod network;
#[path = "table/relay.rs"]
mod relay;
#[path = "table/supply.rs"]
mod supply;

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use distill::bits::Bits;
use distill::cascade::{CorrectedFrame, Corrector, Parameters, Reference};
use distill::hash::PolyHash;
use distill::sifting::entangled::announce;
use distill::sifting::entangled::recovery::{LockState, Recovery};
use photonics::analyser::AnalyserState;
use photonics::nature::pairs::Emitter;
use photonics::random::Subseed;
use photonics::receiver::{Frame, Instrument};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use topology::plan::{DetectorConfig, EntangledReceiver, Nature, Plan, Receiver, RunOptions, plan};

/// Epochs of light that the stages are measured on: five simulated seconds.
const EPOCHS: u64 = 250;

fn main() {
    // What `cargo bench -- memory`, `-- supply`, `-- ingest`, `-- flood`, `-- relay` or `-- counts` asks for: that alone.
    let asked = |part: &str| std::env::args().any(|argument| argument == part);
    if asked(client::ARGUMENT) {
        return client::run().expect("the load");
    }
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../topologies/nice-50km.yaml");
    let bytes = std::fs::read(&file).expect("read the 50 km topology");
    let document = topology::parse("nice-50km.yaml", &bytes).expect("a good topology");
    let plan = plan(&document.topology, &RunOptions { seed: Some(1), ..RunOptions::default() });
    println!("{:<58} {:>14}  bar", "what", "measured");
    if asked("memory") {
        return memory::memory(&file);
    }
    if asked("supply") {
        return supply::supply();
    }
    if asked("ingest") {
        return supply::ingest();
    }
    if asked("flood") {
        return flood::flood();
    }
    if asked("relay") {
        return relay::relay();
    }
    if asked("counts") {
        return counts::counts();
    }
    stages(&plan);
    cascade();
    amplification();
    whole(&file, "tasks", "60s", ">= 10 x");
    whole(&file, "process", "30s", ">= 1 x");
    counts::counts();
    supply::supply();
    supply::ingest();
    flood::flood();
    relay::relay();
    memory::memory(&file);
}

fn row(what: &str, measured: String, bar: &str) {
    println!("{what:<58} {measured:>14}  {bar}");
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// Nanoseconds per tag of each stage between the birth of a photon and a sifted bit. Epoch by epoch, as a link does
/// it, so that buffers are as warm as they are there.
fn stages(plan: &Plan) {
    let ends: Vec<&DetectorConfig> = plan.detectors().collect();
    let [link] = plan.links.as_slice() else { panic!("one link") };
    let (announcer, matcher) = (link.reference(), link.corrector());
    let framing = ends[0].module.protocol.post_processing.framing;
    let sifting = ends.iter().map(|end| end.module.protocol.sifting.entangled().expect("a link of pairs"));
    let sifting: Vec<_> = sifting.collect();
    let mut emitter = emitter(plan);
    let mut instruments: Vec<Instrument> = ends.iter().map(|config| instrument(config)).collect();
    let mut recovery = Recovery::new(framing, sifting[matcher]);
    let mut rng = ChaCha20Rng::from_seed([5; 32]);
    let mut spent = [0.0; 4];
    let (mut born, mut tags, mut events, mut judged) = (0u64, 0u64, 0u64, 0u64);
    let state = AnalyserState::default();
    for epoch in 0..EPOCHS {
        let mut photons = None;
        spent[0] += seconds(|| photons = Some(emitter.emit(epoch, 1.0, [&state, &state])));
        let photons = photons.expect("an epoch of light");
        born += photons.iter().map(|p| u64::from(p.count)).sum::<u64>();
        let mut frames: [Vec<Frame>; 2] = Default::default();
        for (i, instrument) in instruments.iter_mut().enumerate() {
            spent[1] += seconds(|| {
                instrument.detect(epoch, &photons[i].words, &mut frames[i]).expect("photons of an emitter");
            });
        }
        tags += frames.iter().flatten().map(|f| f.tags.len() as u64).sum::<u64>();
        for frame in std::mem::take(&mut frames[matcher]) {
            spent[3] += seconds(|| recovery.push_own(frame.number, frame.tags).expect("consecutive frames"));
        }
        for frame in &frames[announcer] {
            let mut prepared = None;
            spent[2] += seconds(|| {
                let config = sifting[announcer];
                let done = announce::prepare(frame.number, &frame.tags, framing, config, &mut rng);
                prepared = Some(done.expect("sorted tags"));
            });
            let announcement = prepared.expect("an announcement").announcement;
            events += u64::from(announcement.count);
            let locked = recovery.status().state == LockState::Locked;
            let matching = seconds(|| {
                recovery.push_peer(&announcement).expect("a good announcement");
                while let Some(result) = recovery.next_result() {
                    black_box(&result);
                }
            });
            // Acquisition is not what a running link costs.
            if locked {
                spent[3] += matching;
                judged += 1;
            }
        }
    }
    spent[3] *= EPOCHS as f64 / judged.max(1) as f64;
    let hash_gbps = hash_speed();
    let hash_s = 2.0 * 3.0 * events as f64 / (hash_gbps * 1e9);
    row("emission, per photon", format!("{:.2} ns", spent[0] * 1e9 / born as f64), "");
    row("instrument, per tag", format!("{:.2} ns", spent[1] * 1e9 / tags as f64), "");
    row("announcement, per event", format!("{:.2} ns", spent[2] * 1e9 / events as f64), "");
    row(
        "clock recovery and coincidences, one core",
        format!("{:.2e} tags/s", tags as f64 / spent[3]),
        ">= 1e8, then 2e8",
    );
    row("authentication hash, one core", format!("{hash_gbps:.1} GB/s"), "");
    let total = (spent.iter().sum::<f64>() + hash_s) * 1e9 / tags as f64;
    row("all stages, per tag, both ends", format!("{total:.2} ns"), "15 ns is 10 x on 2 cores");
}

fn emitter(plan: &Plan) -> Emitter {
    let config = plan.sources().next().expect("a source");
    let Nature::Pairs(pairs) = &config.nature else { panic!("a source of pairs") };
    Emitter::new(
        &pairs.emitter,
        pairs.arms.each_ref(),
        pairs.analysers.each_ref(),
        pairs.detectors.each_ref(),
        config.epoch_ps,
        &Subseed::new([1; 32]),
    )
}

fn instrument(config: &DetectorConfig) -> Instrument {
    let Receiver::Entangled(EntangledReceiver { detector, clock, analyser, .. }) = &config.receiver else {
        panic!("a receiver of pairs")
    };
    let module = &config.module;
    let seed = Subseed::new([2 + module.output as u8; 32]);
    let frame_ps = module.protocol.post_processing.framing.frame_ps;
    let mut instrument = Instrument::new(detector, clock, analyser, module.epoch_ps, frame_ps, &seed);
    instrument.start(0);
    instrument
}

fn hash_speed() -> f64 {
    let transcript = vec![7u8; 64 << 20];
    let spent = seconds(|| {
        let mut hash = PolyHash::new([3; 16]);
        hash.update(&transcript);
        black_box(hash.finish());
    });
    transcript.len() as f64 * 1e-9 / spent
}

fn cascade() {
    for percent in [2.0, 3.0, 4.0, 5.0] {
        let (frames, bits) = (32, 1 << 16);
        let mut rng = ChaCha20Rng::from_seed([9; 32]);
        let truth: Vec<Bits> = (0..frames).map(|_| random_bits(bits, &mut rng)).collect();
        let noisy: Vec<Bits> = truth.iter().map(|frame| flip(frame, percent / 100.0, &mut rng)).collect();
        let errors: usize = truth.iter().zip(&noisy).map(|(a, b)| a.distance(b)).sum();
        let parameters = Parameters { qber: percent / 100.0, seed: 1 };
        let mut done = Vec::new();
        let strings = (truth.clone(), noisy);
        let spent = seconds(|| done = reconcile(strings.0, strings.1, &parameters));
        let leaked: u64 = done.iter().map(|f| f.leaked_bits).sum();
        let failed = done.iter().zip(&truth).filter(|(f, t)| f.bits.distance(t) > 0).count();
        let e = errors as f64 / (frames * bits) as f64;
        let f = leaked as f64 / ((frames * bits) as f64 * distill::bounds::binary_entropy(e));
        let rate = (frames * bits) as f64 * 1e-6 / spent;
        row(
            &format!("Cascade at {percent} %: both machines, f {f:.3}, {failed} of {frames} failed"),
            format!("{rate:.0} Mbit/s"),
            ">= 55 Mbit/s, f <= 1.06",
        );
    }
}

fn random_bits(len: usize, rng: &mut ChaCha20Rng) -> Bits {
    Bits::from_words((0..len.div_ceil(64)).map(|_| rng.next_u64()).collect(), len)
}

/// Both machines of Cascade; what the corrector has in the end.
fn reconcile(truth: Vec<Bits>, noisy: Vec<Bits>, parameters: &Parameters) -> Vec<CorrectedFrame> {
    let mut reference = Reference::new(truth, parameters);
    let mut corrector = Corrector::new(noisy, parameters);
    let mut query = Some(corrector.start());
    while let Some(asked) = query {
        let answer = reference.answer(&asked).expect("an honest query");
        query = corrector.next(&answer).expect("an honest answer");
    }
    corrector.finish()
}

fn flip(frame: &Bits, probability: f64, rng: &mut ChaCha20Rng) -> Bits {
    let mut noisy = frame.clone();
    let threshold = (probability * u32::MAX as f64) as u32;
    for i in 0..noisy.len() {
        if rng.next_u32() < threshold {
            noisy.set(i, !noisy.get(i));
        }
    }
    noisy
}

fn amplification() {
    for (n, share, bar) in [(4 << 20, 0.45, ">= 500 Mbit/s"), (100_000_000usize, 0.3, ">= 261 Mbit/s")] {
        let l = (n as f64 * share) as usize;
        let mut rng = ChaCha20Rng::from_seed([4; 32]);
        let (key, seed) = (random_bits(n, &mut rng), random_bits(distill::amplify::seed_len(n, l), &mut rng));
        let best = (0..3)
            .map(|_| {
                seconds(|| {
                    black_box(distill::amplify::toeplitz(&key, &seed, l));
                })
            })
            .fold(f64::INFINITY, f64::min);
        let what = format!("amplification of {n} bits, the seed's transform counted");
        row(&what, format!("{:.0} Mbit/s", n as f64 * 1e-6 / best), bar);
    }
}

/// Simulated over wall time of a whole run.
fn whole(file: &Path, isolation: &str, simulated: &str, bar: &str) {
    let summary = run(file, isolation, simulated);
    let ratio = summary["simulated_s"].as_f64().unwrap_or(0.0) / summary["wall_s"].as_f64().unwrap_or(1.0);
    row(&format!("50 km link, simulated over wall time, {isolation}"), format!("{ratio:.1} x"), bar);
}

/// The summary of a whole run.
fn run(file: &Path, isolation: &str, simulated: &str) -> serde_json::Value {
    let data = std::env::temp_dir().join(format!("qkdnet-bench-{}-{isolation}", std::process::id()));
    let output = Command::new(env!("CARGO_BIN_EXE_qkdnet"))
        .env("QKDNET_STATE_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/state"))
        .arg("up")
        .arg(file)
        .args(["--for", simulated, "--seed", "1", "--output", "json", "--isolation", isolation, "--data"])
        .arg(&data)
        .output()
        .expect("run qkdnet");
    let text = String::from_utf8_lossy(&output.stdout);
    let _ = std::fs::remove_dir_all(data);
    text.lines().last().and_then(|line| serde_json::from_str(line).ok()).expect("a summary")
}
