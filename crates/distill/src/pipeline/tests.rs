//! Two modules in lockstep on light from `photonics`: what both ends end up with, and what a broken dialogue does.

use std::collections::{BTreeMap, VecDeque};

use photonics::analyser::AnalyserState;
use photonics::config::{Arm, Clock, Detector, EnergyTimeAnalyser, Polarisation, SpdcCw};
use photonics::nature::pairs::Emitter;
use photonics::random::Subseed;
use photonics::receiver::{Controls, Frame, Instrument};

use super::*;
use crate::config::{Entangled, Role, Sifting};
use crate::ledger::Line;

const EPOCH_PS: u64 = 20_000_000_000;
const LATENCY: u64 = 25;

fn entangled(protocol: &mut LinkProtocol) -> &mut Entangled {
    match &mut protocol.sifting {
        Sifting::Entangled(config) => config,
        Sifting::Prepared(_) | Sifting::Counts(_) => panic!("a link of pairs"),
    }
}

/// A bright, short link: the dialogue is what is tested here.
struct Light {
    emitter: Emitter,
    instruments: [Instrument; 2],
    analysers: [Instrument; 2],
    epoch: u64,
    setpoints: VecDeque<[Setpoints; 2]>,
}

impl Light {
    fn new(seed: u8) -> Self {
        let source =
            SpdcCw { pair_rate_hz: 2e7, visibility: 0.99, bandwidth_nm: 0.8, pump_max: 2.0, steps: Vec::new() };
        let polarisation = Polarisation {
            initial_rad: [0.0; 2],
            drift_amplitude_rad: 0.0,
            drift_period_s: 36_000.0,
            dependent_loss: 0.03,
            steps: Vec::new(),
        };
        let arm = Arm {
            length_km: 10.0,
            loss_db: 7.0,
            delay_ps: 49_000_000.0,
            delay_drift_amplitude_ps: 0.0,
            delay_drift_period_s: 36_000.0,
            dispersion_ps_per_nm: 0.0,
            polarisation,
        };
        let analyser = EnergyTimeAnalyser {
            delay_ps: 400.0,
            z_probability: 0.5,
            visibility: 0.997,
            crosstalk: 0.001,
            phase_initial_rad: 0.0,
            phase_drift_rad_per_s: 1e-7,
            phase_noise_rad_per_sqrt_s: 0.0,
            steps: Vec::new(),
        };
        let detector = Detector {
            efficiency: 0.8,
            jitter_fwhm_ps: 50.0,
            dark_rate_hz: 100.0,
            dead_time_ps: 30_000.0,
            afterpulse_probability: 0.001,
            afterpulse_decay_ps: 50_000.0,
            latch_probability: 0.0,
            latch_reset_ps: 0.0,
            tdc_resolution_ps: 4.0,
            skew_ps: [0.0; 4],
        };
        let clock = |offset_ps: f64, frequency_error: f64| Clock {
            offset_ps,
            frequency_error,
            frequency_walk_per_sqrt_s: 1e-13,
            phase_walk_ps_per_sqrt_s: 0.5,
        };
        let clocks = [clock(3.1e9, 4e-8), clock(-2.4e9, -3e-8)];
        let seed = |label: &str| Subseed::new([seed; 32]).derive(label);
        let instrument = |i: usize| {
            Instrument::new(&detector, &clocks[i], &analyser, EPOCH_PS, EPOCH_PS, &seed(&format!("instrument {i}")))
        };
        let mut light = Self {
            emitter: Emitter::new(
                &source,
                [&arm, &arm],
                [&analyser, &analyser],
                [&detector, &detector],
                EPOCH_PS,
                &seed("source"),
            ),
            instruments: [instrument(0), instrument(1)],
            analysers: [instrument(0), instrument(1)],
            epoch: 0,
            setpoints: vec![[Setpoints::default(); 2]; LATENCY as usize].into(),
        };
        for instrument in &mut light.instruments {
            instrument.start(0);
        }
        light
    }

    /// The frames that one more epoch completes, at each end.
    fn epoch(&mut self) -> [Vec<Frame>; 2] {
        let setpoints = self.setpoints.pop_front().expect("the loops are behind");
        let epoch = self.epoch;
        let mut state = |i: usize| -> AnalyserState {
            let controls =
                Controls { phase_rad: setpoints[i].phase_rad, polarisation_rad: setpoints[i].polarisation_rad };
            self.analysers[i].analyser_state(epoch, &controls)
        };
        let states = [state(0), state(1)];
        let photons = self.emitter.emit(epoch, setpoints[0].pump, [&states[0], &states[1]]);
        self.epoch += 1;
        let mut frames = [Vec::new(), Vec::new()];
        for i in 0..2 {
            self.instruments[i].detect(epoch, &photons[i].words, &mut frames[i]).expect("photons of an emitter");
        }
        frames
    }
}

/// What one end did.
#[derive(Default)]
struct Record {
    prepared: BTreeMap<u64, FinishedBlock>,
    keys: BTreeMap<u64, FinishedBlock>,
    aborted: Vec<u64>,
    notes: Vec<&'static str>,
}

impl Record {
    fn take(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Prepare(block) => {
                    self.prepared.insert(block.number, block);
                }
                Action::Store(block) => {
                    self.keys.insert(block.number, block);
                }
                Action::Commit { block } => {
                    let block = self.prepared.remove(&block).expect("only a prepared block is committed");
                    self.keys.insert(block.number, block);
                }
                Action::Void { block } => {
                    self.prepared.remove(&block);
                }
                Action::Abort { block, .. } => self.aborted.push(block),
                Action::Note { name, .. } => self.notes.push(name),
                Action::Keep { .. } | Action::Settle { .. } | Action::Spend { .. } => {
                    panic!("a block that is sifted at one go")
                }
                Action::Stage { .. } | Action::Trace { .. } => {}
            }
        }
    }
}

/// Runs both ends for some epochs of light and then to the end; the tag of a closed round is taken as verified.
fn run(seed: u8, epochs: u64, change: impl Fn(&mut LinkProtocol)) -> [Record; 2] {
    let mut light = Light::new(seed);
    let start = SessionStart {
        first_block: 0,
        in_doubt: None,
        peer_committed_end: 0,
        own_committed_end: 0,
        latency_steps: LATENCY,
        setpoints: Setpoints::default(),
    };
    let mut modules = [Role::Matcher, Role::Announcer].map(|role| {
        let mut protocol = LinkProtocol::bbm92(role);
        change(&mut protocol);
        Module::new(&protocol, &start, [seed ^ role as u8; 32])
    });
    let mut waiting: [VecDeque<Option<Frame>>; 2] = Default::default();
    let mut said: [VecDeque<PeerInput>; 2] = Default::default();
    let mut records: [Record; 2] = Default::default();
    let mut setpoints = [Setpoints::default(); 2];
    let mut finished = [false; 2];
    let mut step = 0;
    while finished != [true; 2] {
        if light.epoch < epochs {
            for (queue, frames) in waiting.iter_mut().zip(light.epoch()) {
                queue.extend(frames.into_iter().map(Some));
            }
        } else {
            waiting.iter_mut().for_each(|queue| queue.push_back(None));
        }
        while waiting.iter().all(|queue| !queue.is_empty()) && finished != [true; 2] {
            let mut outputs = Vec::new();
            for i in 0..2 {
                let frame = waiting[i].pop_front().flatten();
                let frame = frame.map(|f| FrameInput::tags(f.number, f.tags, String::new()));
                let peer = if step == 0 { None } else { said[1 - i].pop_front() };
                if finished[i] {
                    continue;
                }
                let output = modules[i].step(frame, peer).expect("two honest ends");
                records[i].take(output.actions);
                setpoints[i] = output.setpoints;
                finished[i] = output.finished;
                outputs.push((i, PeerInput { payload: output.payload.into(), authenticated: output.close_round }));
            }
            for (i, output) in outputs {
                said[i].push_back(output);
            }
            step += 1;
            assert!(step < 100_000, "the run does not end");
        }
        if light.epoch < epochs {
            light.setpoints.push_back(setpoints);
        }
    }
    records
}

#[test]
fn both_ends_store_the_same_secret_bits_and_every_ledger_sums() {
    let [matcher, announcer] = run(1, 250, |_| {});
    assert!(matcher.keys.len() >= 4, "{} blocks, {:?}", matcher.keys.len(), matcher.notes);
    assert_eq!(matcher.keys.keys().collect::<Vec<_>>(), announcer.keys.keys().collect::<Vec<_>>());
    for (number, block) in &matcher.keys {
        let twin = &announcer.keys[number];
        assert!(block.key.len() > 1000, "block {number} has {} bits", block.key.len());
        assert!(block.key.ct_eq(&twin.key), "block {number} differs");
        for end in [block, twin] {
            end.ledger.check().expect("a ledger that sums");
            let key = [Line::DELIVERED, Line::AUTHENTICATION].map(|line| end.ledger.get(line));
            assert_eq!(key.iter().sum::<u64>(), end.key.len() as u64);
        }
        for line in [Line::SIFTED_KEY, Line::LEAKED, Line::KEY_ERRORS] {
            assert_eq!(block.ledger.get(line), twin.ledger.get(line), "{}", line.name());
        }
    }
    assert!(announcer.prepared.is_empty(), "nothing is left in doubt");
}

#[test]
fn the_same_seed_gives_the_same_key_and_another_seed_another() {
    let key = |seed| {
        let [matcher, _] = run(seed, 120, |_| {});
        matcher.keys.values().flat_map(|block| block.key.to_bytes()).collect::<Vec<u8>>()
    };
    let (first, again, other) = (key(3), key(3), key(4));
    assert!(!first.is_empty());
    assert!(first == again);
    assert!(first != other);
}

#[test]
fn without_the_correlator_there_is_no_lock_and_no_key() {
    let [matcher, announcer] = run(5, 120, |protocol| entangled(protocol).acquisition.correlator = false);
    assert!(matcher.keys.is_empty() && announcer.keys.is_empty());
    assert!(!matcher.notes.contains(&"locked"));
}

#[test]
fn a_block_above_the_tolerated_error_rate_gives_no_key() {
    let [matcher, announcer] = run(6, 120, |protocol| protocol.post_processing.security.tolerated_qber = 0.001);
    assert!(matcher.keys.is_empty() && announcer.keys.is_empty());
    assert!(!matcher.aborted.is_empty());
    assert_eq!(matcher.aborted, announcer.aborted);
}

#[test]
fn nonsense_from_the_peer_is_an_error_and_never_a_panic() {
    let start = SessionStart {
        first_block: 0,
        in_doubt: None,
        peer_committed_end: 0,
        own_committed_end: 0,
        latency_steps: LATENCY,
        setpoints: Setpoints::default(),
    };
    let block = |step| vec![BlockMessage { block: 0, step: Some(step) }];
    let sifting = |tag, bytes: &[u8]| Some(SiftingMessage { tag, bytes: bytes.to_vec().into() });
    let nonsense = [
        b"\xff\xff\xff\xff".to_vec(),
        Bundle { step: 7, ..Bundle::default() }.encode_to_vec(),
        Bundle { blocks: block(BlockStep::Prepared(true)), ..Bundle::default() }.encode_to_vec(),
        Bundle { blocks: block(BlockStep::Close(true)), ..Bundle::default() }.encode_to_vec(),
        Bundle { blocks: block(BlockStep::Answer(vec![1, 2, 3])), ..Bundle::default() }.encode_to_vec(),
        Bundle { blocks: vec![BlockMessage { block: 0, step: None }], ..Bundle::default() }.encode_to_vec(),
        // Another protocol, nothing, no message at all, an empty reply, empty X bits.
        Bundle { sifting: sifting(2, b"\x12\x00"), ..Bundle::default() }.encode_to_vec(),
        Bundle { sifting: sifting(1, b""), ..Bundle::default() }.encode_to_vec(),
        Bundle { sifting: sifting(1, b"\xff"), ..Bundle::default() }.encode_to_vec(),
        Bundle { sifting: sifting(1, b"\x12\x00"), ..Bundle::default() }.encode_to_vec(),
        Bundle { sifting: sifting(1, b"\x1a\x00"), ..Bundle::default() }.encode_to_vec(),
    ];
    for role in [Role::Matcher, Role::Announcer] {
        for (index, payload) in nonsense.iter().enumerate() {
            let mut module = Module::new(&LinkProtocol::bbm92(role), &start, [0; 32]);
            module.step(None, None).expect("the first step needs no peer");
            let peer = PeerInput { payload: payload.clone().into(), authenticated: index % 2 == 0 };
            assert!(module.step(None, Some(peer)).is_err(), "{role:?} took nonsense {index}");
        }
    }
}

#[test]
fn ends_of_other_versions_and_other_configurations_part_with_the_reason() {
    let hello = |change: &dyn Fn(&mut LinkProtocol), role| {
        let mut protocol = LinkProtocol::bbm92(role);
        change(&mut protocol);
        Hello::new(&protocol, 0, 0, 0)
    };
    let [own, peer] = [Role::Matcher, Role::Announcer].map(|role| hello(&|_| {}, role));
    assert_eq!(own.check_peer(&peer), Ok(()));
    let other = hello(&|protocol| entangled(protocol).coincidence_window_ps = 100, Role::Announcer);
    assert_eq!(own.check_peer(&other), Err(Mismatch::Configuration));
    // Before version 3 the greeting did not say its version.
    let older = Hello { dialogue: 0, ..peer };
    assert_eq!(own.check_peer(&older), Err(Mismatch::Version));
}

#[test]
fn another_form_of_the_configuration_is_another_version_of_the_dialogue() {
    // Where this fails, ends of the version before would take each other's configuration for a different one: raise
    // DIALOGUE, and write the new pair here.
    let fingerprint = protocol_fingerprint(&LinkProtocol::bbm92(Role::Announcer));
    assert_eq!((DIALOGUE, fingerprint), (4, 12_092_597_749_310_965_773));
}
