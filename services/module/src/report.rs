//! Turns what a module does into status, events and the spans of each block's trace.

use std::collections::BTreeMap;
use std::time::SystemTime;

use distill::config::Emission;
use distill::ledger::{BlockLedger, Line};
use distill::pipeline::{self, Action, Compared, FinishedBlock, Module, Setpoints, Stage};
use distill::sifting::{Detected, SiftingFigures};
use proto::detector::v1::{BlockStored, LinkState};
use shell::figures;
use telemetry::names::{attribute as attr, span};
use telemetry::trace::{Span, Tracer};
use topology::figure::{Figure, Figures, Measured};
use topology::plan::ModuleConfig;

use crate::metrics::Metrics;
use crate::status::Monitor;

/// Blocks whose spans may be open at once.
const OPEN_BLOCKS_MAX: usize = 32;

/// Follows one session.
pub struct Reporter {
    tracer: Tracer,
    metrics: Metrics,
    link: String,
    site: String,
    epoch_s: f64,
    frame_s: f64,
    epochs_per_report: u64,
    /// Light of a block.
    block_s: f64,
    /// Simulated time at which the block that is being sifted will be, where blocks take long.
    expected_s: Option<f64>,
    /// Not so at a transmitter.
    has_detectors: bool,
    /// Which set-points this end has a say in.
    owns: Owned,
    emission: Emission,
    session: u64,
    /// When the step under way, or the write under way, began: a state machine has no clock of its own.
    began: SystemTime,
    blocks: BTreeMap<u64, BlockTrace>,
    /// Reference side: blocks that are durable and wait for the peer's word.
    prepared: BTreeMap<u64, Stored>,
    window: Window,
    /// Windows without a trace of the peer's light after which the next word about it is due.
    attempts_said: u64,
}

/// Blocks that take this long are announced: until then nobody can tell whether a link works.
const LONG_BLOCK_S: f64 = 600.0;

/// The first failed searches are usual; from this many on they are said, more and more seldom.
const ATTEMPTS_SAID_FIRST: u64 = 8;

/// The open spans of one block.
struct BlockTrace {
    block: Span,
    stages: Vec<(Stage, Span)>,
}

/// What is told of a block once it counts.
#[derive(Clone)]
struct Stored {
    key_bits: u64,
    frames: u64,
    detected: Detected,
    finite: u64,
    ledger: BlockLedger,
}

/// The other end moves the pump; light that is drawn as counts comes with a polarisation that is held.
#[derive(Clone, Copy)]
struct Owned {
    pump: bool,
    polarisation: bool,
}

/// Counts at the last report, for rates.
#[derive(Clone, Copy, Default)]
struct Window {
    epoch: u64,
    clicks: u64,
    sifted_z: u64,
    sifted_x: u64,
}

impl Reporter {
    pub fn new(config: &ModuleConfig, first_epoch: u64) -> Self {
        let epoch_s = config.epoch_ps as f64 * 1e-12;
        let block_s = config.protocol.post_processing.framing.round_s();
        Self {
            tracer: Tracer::new(config.name.clone()),
            metrics: Metrics::new(config),
            link: config.link.clone(),
            site: config.site.clone(),
            epoch_s,
            frame_s: config.protocol.post_processing.framing.frame_s(),
            epochs_per_report: (1.0 / epoch_s).ceil() as u64,
            block_s,
            expected_s: (block_s >= LONG_BLOCK_S).then_some(first_epoch as f64 * epoch_s + block_s),
            has_detectors: config.protocol.has_receiver(),
            owns: Owned {
                pump: config.protocol.is_pumped() && config.protocol.sets_pump(),
                polarisation: !config.protocol.is_counted(),
            },
            emission: config.protocol.post_processing.security.emission,
            session: 0,
            began: SystemTime::now(),
            blocks: BTreeMap::new(),
            prepared: BTreeMap::new(),
            window: Window { epoch: first_epoch, ..Window::default() },
            attempts_said: ATTEMPTS_SAID_FIRST,
        }
    }

    /// What is reported next began now.
    pub fn begins(&mut self) {
        self.began = SystemTime::now();
    }

    pub fn session_begins(&mut self, monitor: &Monitor, session: u64, reserve_tags: u64) {
        self.session = session;
        monitor.session_begins();
        monitor.update(|s| {
            s.session = session;
            s.reserve_tags = reserve_tags;
            s.rolled_back = None;
            s.reserves_differ.clear();
            s.state = LinkState::Acquiring.into();
        });
        monitor.publish();
        monitor.note("session", &format!("session {session} with the peer"));
    }

    /// An epoch of light was taken, or one without light.
    pub fn light(&self, monitor: &Monitor, epoch: u64, outage: &str) {
        monitor.epoch(epoch, outage, self.epoch_s);
    }

    /// Refreshes the figures, once per simulated second; epochs below `done` are over.
    pub fn epoch(&mut self, monitor: &Monitor, (epoch, done): (u64, u64), module: &Module, setpoints: Setpoints) {
        let epochs = epoch.saturating_sub(self.window.epoch);
        if epochs < self.epochs_per_report {
            return;
        }
        let told = module.figures();
        let light = &told.sifting;
        let window = Window { epoch, clicks: light.clicks, sifted_z: light.sifted_key, sifted_x: light.sifted_check };
        let last = std::mem::replace(&mut self.window, window);
        let mut figures = measured(&told, setpoints, self.owns);
        gains(&mut figures, &told.detected, &self.emission);
        let rate = |count: u64| Measured::Value(count as f64 / (epochs as f64 * self.epoch_s));
        figures.set(Figure::ClickRate, self.has_detectors.then(|| rate(window.clicks - last.clicks)));
        figures.set(Figure::SiftedRateZ, rate(window.sifted_z - last.sifted_z));
        figures.set(Figure::SiftedRateX, rate(window.sifted_x - last.sifted_x));
        let simulated_s = done as f64 * self.epoch_s;
        let is_dark = monitor.is_dark();
        monitor.update(|s| {
            let expected_s = self.expected_s.filter(|_| s.blocks == 0);
            figures.set(Figure::FirstBlock, expected_s.map(Measured::Value));
            s.simulated_s = simulated_s;
            s.clicks = light.clicks;
            s.figures = figures::tell(&figures);
            let mut counted = figures::hear(&s.counted);
            monitor.tell_uptime(&mut counted);
            s.counted = figures::tell(&counted);
            // An end without a clock to recover is locked when bits come back.
            let locked = light.locked || (light.recovery.is_none() && light.sifted_key > last.sifted_z);
            s.state = if locked && !is_dark { LinkState::Locked } else { LinkState::Acquiring }.into();
        });
        self.search(monitor, light);
        let status = monitor.status();
        self.metrics.record(&status, &figures::of_module(&status));
        monitor.publish();
    }

    /// A search for the peer's clock that goes on for long is told.
    fn search(&mut self, monitor: &Monitor, figures: &SiftingFigures) {
        let Some(clock) = figures.recovery.as_ref().filter(|_| !figures.locked) else { return };
        if clock.attempts >= self.attempts_said {
            self.attempts_said = 2 * clock.attempts;
            let missing =
                if self.emission.is_pairs() { "coincidence peak" } else { "light at the period of the pulses" };
            monitor.note("acquiring", &format!("no {missing} in {} windows so far", clock.attempts));
        }
    }

    pub fn action(&mut self, monitor: &Monitor, action: &Action) {
        match action {
            Action::Trace { block, traceparent } => self.begin(*block, traceparent),
            Action::Stage { block, stage, begin } => self.stage(*block, *stage, *begin),
            Action::Note { name, message } => {
                monitor.note(name, message);
                if *name == "locked" {
                    monitor.update(|s| s.state = LinkState::Locked.into());
                }
            }
            Action::Abort { block, reason, frames, detected, ledger } => {
                monitor.note("block-aborted", &format!("block {block} gave no key: {reason}"));
                monitor.update(|s| s.blocks_aborted += 1);
                self.expected_s = self.expected_s.map(|expected_s| expected_s + self.block_s);
                let (frames, detected, ledger) = (*frames, *detected, ledger.clone());
                self.end(*block, "aborted", &ledger);
                self.count(monitor, &Stored { key_bits: 0, frames, detected, finite: 0, ledger });
            }
            Action::Void { block } => {
                self.prepared.remove(block);
                self.voided(monitor, *block);
            }
            Action::Prepare(_)
            | Action::Store(_)
            | Action::Commit { .. }
            | Action::Keep { .. }
            | Action::Settle { .. }
            | Action::Spend { .. } => {}
        }
    }

    /// The span of a block, for what goes on with it.
    pub fn traceparent(&self, block: u64) -> String {
        self.blocks.get(&block).map(|b| b.block.traceparent()).unwrap_or_default()
    }

    /// The trace of a block in work, as hexadecimal digits.
    pub fn trace_id(&self, block: u64) -> String {
        self.blocks.get(&block).map(|b| b.block.trace_id()).unwrap_or_default()
    }

    /// The corrector's block is stored and counts at once.
    pub fn stored(&mut self, monitor: &Monitor, block: &FinishedBlock) {
        self.prepared(block);
        self.committed(monitor, block.number);
    }

    /// The reference side's block is durable; it counts when the peer's word has come under a tag.
    pub fn prepared(&mut self, block: &FinishedBlock) {
        let stored = Stored {
            key_bits: block.ledger.get(Line::DELIVERED),
            frames: block.frames,
            detected: block.detected,
            finite: block.length.finite.saturating_sub(block.reserve_bits as u64),
            ledger: block.ledger.clone(),
        };
        self.prepared.insert(block.number, stored);
    }

    pub fn committed(&mut self, monitor: &Monitor, block: u64) {
        // A block of an earlier session is not known here; its key counts all the same.
        let Some(stored) = self.prepared.remove(&block) else { return };
        monitor.update(|s| {
            s.blocks += 1;
            s.key_bits += stored.key_bits;
        });
        self.count(monitor, &stored);
        let trace_id = self.trace_id(block);
        if let Some(trace) = self.blocks.get(&block) {
            let span = self.tracer.span(span::STORE).parent(&trace.block.context()).started_at(self.began);
            span.attribute(attr::KEY_BITS, stored.key_bits).attribute(attr::BLOCK_ID, block).start().end();
        }
        self.end(block, "stored", &stored.ledger);
        let figures = figures::tell(&self.compared(&stored));
        monitor.block(BlockStored { block, key_bits: stored.key_bits, trace_id, figures });
        monitor.publish();
    }

    /// A round that ended with its session.
    pub fn voided(&mut self, monitor: &Monitor, block: u64) {
        monitor.update(|s| s.blocks_voided += 1);
        monitor.note("round-voided", &format!("block {block} is void: nothing of it is kept"));
        if let Some(mut trace) = self.blocks.remove(&block) {
            trace.block.set(attr::BLOCK_OUTCOME, "voided");
        }
    }

    /// A session broke in a block of which something is kept.
    pub fn interrupted(&mut self, monitor: &Monitor, block: u64, kept_s: f64) {
        let kept =
            format!("block {block}: {kept_s:.0} s of light are kept, what came after the last checkpoint is void");
        monitor.note("stretch-voided", &kept);
        if let Some(mut trace) = self.blocks.remove(&block) {
            trace.block.set(attr::BLOCK_OUTCOME, "interrupted");
        }
    }

    /// Both ends know with what of a block the session began.
    pub fn goes_on(&mut self, monitor: &Monitor, block: u64, kept_s: f64) {
        self.expected_s = self.expected_s.map(|expected_s| expected_s - kept_s);
        monitor.note("block-goes-on", &format!("block {block} goes on with {kept_s:.0} s of light from before"));
    }

    /// Adds a finished round to the figures that people compare.
    fn count(&mut self, monitor: &Monitor, stored: &Stored) {
        let seconds = stored.frames as f64 * self.frame_s;
        let mut block = self.compared(stored);
        let authentication = stored.ledger.get(Line::AUTHENTICATION);
        block.set(Figure::AuthenticationShare, Measured::ratio(authentication, authentication + stored.key_bits));
        monitor.update(|s| {
            s.counted_s += seconds;
            s.finite_bits += stored.finite;
            let mut counted = figures::hear(&s.counted);
            counted.count(&block);
            counted.set(Figure::SecretKeyRate, Measured::Value(s.key_bits as f64 / s.counted_s));
            counted.set(Figure::SecretKeyRateFinite, Measured::Value(s.finite_bits as f64 / s.counted_s));
            s.counted = figures::tell(&counted);
        });
    }

    /// Error rates and gains of a block.
    fn compared(&self, stored: &Stored) -> Figures {
        let mut figures = compared(&stored.ledger);
        gains(&mut figures, &stored.detected, &self.emission);
        figures
    }

    fn begin(&mut self, block: u64, traceparent: &str) {
        while self.blocks.len() >= OPEN_BLOCKS_MAX {
            self.blocks.pop_first();
        }
        let span = self
            .tracer
            .span(span::BLOCK)
            .parent_from(traceparent)
            .attribute(attr::LINK_ID, self.link.as_str())
            .attribute(attr::SITE_ID, self.site.as_str())
            .attribute(attr::BLOCK_ID, block)
            .attribute(attr::SESSION_ID, format!("{:016x}", self.session))
            .start();
        self.blocks.insert(block, BlockTrace { block: span, stages: Vec::new() });
    }

    fn stage(&mut self, block: u64, stage: Stage, begin: bool) {
        let Some(trace) = self.blocks.get_mut(&block) else { return };
        if begin {
            let name = match stage {
                Stage::Sift => span::SIFT,
                Stage::Reconcile => span::RECONCILE,
                Stage::Verify => span::VERIFY,
                Stage::Amplify => span::AMPLIFY,
                Stage::Authenticate => span::AUTHENTICATE,
            };
            let span = self.tracer.span(name).parent(&trace.block.context()).attribute(attr::BLOCK_ID, block);
            let span = span.started_at(self.began).start();
            trace.stages.push((stage, span));
        } else if let Some(at) = trace.stages.iter().position(|(s, _)| *s == stage) {
            trace.stages.remove(at).1.end();
        }
    }

    fn end(&mut self, block: u64, outcome: &str, ledger: &BlockLedger) {
        let Some(mut trace) = self.blocks.remove(&block) else { return };
        trace.block.set(attr::BLOCK_OUTCOME, outcome);
        for (line, value) in ledger.lines() {
            trace.block.set(&telemetry::names::ledger(&line.name()), value);
        }
        trace.block.end();
    }
}

/// What a module measures beside rates: of its last block, of the two clocks, and what its instruments are set to.
fn measured(told: &pipeline::Figures, setpoints: Setpoints, owns: Owned) -> Figures {
    let share = |Compared { bits, errors }| Measured::ratio(errors, bits);
    let mut figures = Figures::default();
    figures.set(Figure::QberZ, share(told.key));
    figures.set(Figure::QberX, share(told.check));
    let visibility = (1.0 - 2.0 * told.check.qber()).max(0.0);
    figures.set(Figure::Visibility, (told.check.bits > 0).then_some(Measured::Value(visibility)));
    for (figure, angle_rad) in
        [Figure::PolarisationFirst, Figure::PolarisationSecond].into_iter().zip(setpoints.polarisation_rad)
    {
        figures.set(figure, owns.polarisation.then_some(Measured::Value(angle_rad)));
    }
    figures.set(Figure::Pump, (owns.pump && setpoints.pump > 0.0).then_some(Measured::Value(setpoints.pump)));
    // The other end does not move the phase.
    if let Some(clock) = &told.sifting.recovery {
        figures.set(Figure::Phase, Measured::Value(setpoints.phase_rad));
        if told.sifting.locked {
            figures.set(Figure::ClockOffset, Measured::Value(clock.offset_ps));
            figures.set(Figure::ClockFrequency, Measured::Value(clock.frequency));
            figures.set(Figure::ClockResidual, Measured::Value(clock.residual_ps));
            figures.set(Figure::PeakWidth, Measured::Value(clock.peak_fwhm_ps));
        }
    }
    figures
}

/// Detections per pulse, by intensity. Pairs have none.
fn gains(figures: &mut Figures, detected: &Detected, emission: &Emission) {
    for (figure, [count, total]) in Figure::GAINS.into_iter().zip(detected.gains(emission)) {
        figures.set(figure, Measured::ratio(count, total));
    }
}

/// Error rates of a block, by its account.
fn compared(ledger: &BlockLedger) -> Figures {
    let share = |errors: Line, of: Line| Measured::ratio(ledger.get(errors), ledger.get(of));
    let mut figures = Figures::default();
    figures.set(Figure::QberZ, share(Line::KEY_ERRORS, Line::SIFTED_KEY));
    figures.set(Figure::QberX, share(Line::CHECK_ERRORS, Line::CHECK_DISCLOSED));
    figures
}

#[cfg(test)]
mod tests {
    use distill::config::Intensity;

    use super::*;

    #[test]
    fn gains_are_told_with_their_counts_of_each_intensity_that_the_light_has() {
        let of = |mean_photons, probability| Intensity { mean_photons, probability };
        let detected = Detected { pulses: 1_000_000, events: [6_000, 300, 0] };
        let told = |detected: &Detected, emission: Emission| {
            let mut figures = Figures::default();
            gains(&mut figures, detected, &emission);
            Figure::GAINS.map(|figure| figures.get(figure))
        };
        let ratio = |count, total| Some(Measured::Ratio { count, total });
        let (signal, decoy, vacuum) = (of(0.5, 0.7), of(0.1, 0.2), of(0.0, 0.1));
        let two_decoys = Emission::TwoDecoys([signal, decoy, vacuum]);
        assert_eq!(told(&detected, two_decoys), [ratio(6_000, 700_000), ratio(300, 200_000), ratio(0, 100_000)]);
        let one_decoy = Emission::OneDecoy([signal, of(0.1, 0.3)]);
        assert_eq!(told(&detected, one_decoy), [ratio(6_000, 700_000), ratio(300, 300_000), None]);
        // Nothing is told of pairs, nor where the transmitter did not say what was detected.
        assert_eq!(told(&detected, Emission::Pairs), [None; 3]);
        assert_eq!(told(&Detected::default(), two_decoys), [None; 3]);
    }
}
