//! Steps that hit an instrument in the middle of a run: what they spoil, the control loops repair, and nothing else
//! does.

use serde_json::Value;

use crate::support::{Place, bright};

/// Fixed, so that every run is the same one; the bounds hold for other seeds as well.
const SEED: &str = "3";

/// Simulated seconds of a block. With rounds of a second, block `n` is the light of second `n`.
struct Run {
    blocks: Vec<Value>,
}

impl Run {
    /// Runs a bright link with one scheduled step for this many simulated seconds.
    fn new(step: &str, seconds: u64, changes: &[(&str, &str)]) -> Self {
        let step = format!("      use: bbm92\n      disturbances:\n        - {step}\n");
        let common = [
            ("      use: bbm92\n", step.as_str()),
            // What the check basis shows is what is looked at; no block shall abort for it.
            ("toleratedQber: 8 %", "toleratedQber: 40 %"),
        ];
        let place = Place::new(&bright(&[&common, changes].concat()));
        let lines = place.up("data", &["--seed", SEED, "--for", &format!("{seconds}s")]);
        let blocks = lines.iter().map(|line| &line["block"]).filter(|block| block.is_object()).cloned().collect();
        Self { blocks }
    }

    fn sum(&self, seconds: std::ops::Range<u64>, field: &str) -> f64 {
        let within = self.blocks.iter().filter(|block| seconds.contains(&block["number"].as_u64().expect("a number")));
        within.map(|block| block[field].as_f64().expect("a figure")).sum()
    }

    /// How many blocks of these seconds gave key.
    fn stored(&self, seconds: std::ops::Range<u64>) -> usize {
        self.blocks.iter().filter(|block| seconds.contains(&block["number"].as_u64().expect("a number"))).count()
    }

    /// Error rate over these seconds, and the square of its standard deviation.
    fn qber(&self, seconds: std::ops::Range<u64>, basis: &str) -> (f64, f64) {
        let bits = self.sum(seconds.clone(), &format!("sifted_{basis}"));
        assert!(bits > 10_000.0, "{bits} bits in seconds {seconds:?} of {:?}", self.blocks);
        let rate = self.sum(seconds, &format!("errors_{basis}")) / bits;
        (rate, rate * (1.0 - rate) / bits)
    }
}

/// Change of an error rate, and three standard deviations of it.
fn change(before: (f64, f64), after: (f64, f64)) -> (f64, f64) {
    (after.0 - before.0, 3.0 * (before.1 + after.1).sqrt())
}

#[test]
fn the_phase_loop_brings_the_error_rate_in_x_back_after_a_step_of_the_phase() {
    let step = "{type: phase, at: 12 s, site: valrose, step: 0.8 rad}";
    let dim = ("pairRate: 1e6 /s", "pairRate: 2e5 /s");
    let no_pump = ("pump: {enabled: true, targetQber: 4.3 %}", "pump: {enabled: false}");
    let on = Run::new(step, 26, &[dim, no_pump]);
    let off =
        Run::new(step, 26, &[dim, no_pump, ("phase: {enabled: true, dither: 0.05 rad}", "phase: {enabled: false}")]);
    let (returned, within) = change(on.qber(4..12, "x"), on.qber(18..26, "x"));
    // The loop itself wanders by some hundredths of a radian, which costs a quarter of their square.
    assert!(returned.abs() < within + 0.001, "with the loop: {returned} ({within})");
    // Half of 1 - cos 0.9 rad, the arms' own 0.1 rad included, less what it was: 0.19.
    let (stayed, _) = change(off.qber(4..12, "x"), off.qber(18..26, "x"));
    assert!((0.15..0.23).contains(&stayed), "without the loop: {stayed}");
}

#[test]
fn the_polarisation_loop_brings_the_light_back_after_a_turn_of_the_polarisation() {
    let step = "{type: polarisation, at: 12 s, site: valrose, step: 1.5 rad}";
    let changes = [
        ("pairRate: 1e6 /s", "pairRate: 2e5 /s"),
        ("pump: {enabled: true, targetQber: 4.3 %}", "pump: {enabled: false}"),
        // An analyser whose light depends on polarisation so much that seconds show it.
        ("dependentLoss: 3 %", "dependentLoss: 30 %"),
    ];
    let light = |run: &Run, seconds: std::ops::Range<u64>| {
        let blocks = run.stored(seconds.clone()) as f64;
        let bits = run.sum(seconds.clone(), "sifted_z") + run.sum(seconds, "sifted_x");
        (bits / blocks, bits / (blocks * blocks))
    };
    let on = Run::new(step, 44, &changes);
    let off = [&changes[..], &[("polarisation: {enabled: true}", "polarisation: {enabled: false}")]].concat();
    let off = Run::new(step, 44, &off);
    let relative = |run: &Run| {
        let ((before, variance), (after, later)) = (light(run, 6..12), light(run, 36..44));
        (after / before, 3.0 * (variance + later).sqrt() / before)
    };
    let (returned, within) = relative(&on);
    // The dither and what is left of the turn cost up to a hundredth.
    assert!((returned - 1.0).abs() < within + 0.01, "with the loop: {returned} ({within})");
    let (stayed, _) = relative(&off);
    assert!(stayed < 0.9, "without the loop: {stayed}");
}

#[test]
fn the_pump_loop_brings_the_error_rate_in_z_back_after_a_step_of_the_pump() {
    let step = "{type: pump, at: 14 s, factor: 2}";
    let accidentals = [
        ("pairRate: 1e6 /s", "pairRate: 6e7 /s"),
        ("deviceLoss: 1 dB", "deviceLoss: 9 dB"),
        ("attenuation: 0.05 dB/km", "attenuation: 0.239 dB/km"),
        // Shorter steps: what Cascade says takes a few hundred of them, and the loop learns of a block after that.
        ("epoch: 20 ms, latency: 8", "epoch: 10 ms, latency: 8"),
    ];
    let held = ("targetQber: 4.3 %", "targetQber: 1 %");
    let on = Run::new(step, 36, &[&accidentals[..], &[held]].concat());
    let off = ("pump: {enabled: true, targetQber: 4.3 %}", "pump: {enabled: false}");
    let off = Run::new(step, 36, &[&accidentals[..], &[off]].concat());
    let (returned, within) = change(on.qber(6..14, "z"), on.qber(28..36, "z"));
    // A block of a second has forty errors: the loop follows their noise by a few per cent of the rate.
    assert!(returned.abs() < within + 0.0005, "with the loop: {returned} ({within})");
    let (held, within) = change((0.01, 0.0), on.qber(28..36, "z"));
    assert!(held.abs() < within + 0.001, "off the target by {held} ({within})");
    // Accidentals, 0.9 % of the bits, double.
    let (stayed, _) = change(off.qber(6..14, "z"), off.qber(28..36, "z"));
    assert!((0.006..0.012).contains(&stayed), "without the loop: {stayed}");
}
