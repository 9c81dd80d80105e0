//! Rounds of few frames, each longer than reconciliation takes steps: light waits for the rounds in work.

use photonics::expect::{Bbm92Inputs, DetectorModel, Matching, predict};
use photonics::nature::counts::{Emitter, Half as Drawn, Law};
use photonics::random::Subseed;

use super::*;
use crate::config::{Framing, Loops, Role, Sifting};
use crate::sifting::Light;
use crate::sifting::counts::{Counts, Frame, Labelled};

const FRAME_PS: u64 = 4_000_000_000_000;

/// Bits of a bright link, by frames of four seconds.
fn emitter() -> Emitter {
    let pairs = Bbm92Inputs {
        pair_rate_hz: 1e6,
        transmission: [0.1; 2],
        z_probability: [0.7; 2],
        crosstalk: [0.01; 2],
        analyser_delay_ps: [400.0; 2],
        visibility: 0.95,
        mean_cos_phase: 1.0,
        detectors: [DetectorModel::default(), DetectorModel::default()],
        window_ps: 120.0,
        peak_fwhm_ps: 80.0,
        matching: Matching::default(),
    };
    Emitter::new(Law::pairs(&predict(&pairs)).expect("a law"), FRAME_PS, &Subseed::new([6; 32]))
}

fn frame(number: u64, drawn: &Drawn) -> FrameInput {
    let labelled = |of: &photonics::nature::counts::Labelled| Labelled {
        bits: Bits::from_words(of.bits.clone(), of.len),
        kinds: Vec::new(),
    };
    let (key, check) = (labelled(&drawn.key), labelled(&drawn.check));
    let frame = Frame { key, check, clicks: drawn.clicks, mismatched: drawn.mismatched, ..Frame::default() };
    FrameInput { number, light: Light::Counts(Box::new(frame)), traceparent: String::new() }
}

/// One end, and what it made of its frames.
struct End {
    module: Module,
    due: Option<FrameInput>,
    taken_at: Vec<u64>,
    rounds_max: usize,
    keys: Vec<Bits>,
    finished: bool,
}

impl End {
    fn new(role: Role, round_frames: u64) -> Self {
        let mut protocol = LinkProtocol::bbm92(role);
        protocol.post_processing.framing = Framing { frame_ps: FRAME_PS, round_frames };
        protocol.sifting = Sifting::Counts(Counts { side: role.side(), loops: Loops::default() });
        let start = SessionStart {
            first_block: 0,
            in_doubt: None,
            peer_committed_end: 0,
            own_committed_end: 0,
            latency_steps: 8,
            setpoints: Setpoints::default(),
        };
        let module = Module::new(&protocol, &start, [role as u8; 32]);
        Self { module, due: None, taken_at: Vec::new(), rounds_max: 0, keys: Vec::new(), finished: false }
    }

    fn step(&mut self, step: u64, peer: Option<PeerInput>) -> PeerInput {
        let had_one = self.due.is_some();
        let output = self.module.step(self.due.take(), peer).expect("two honest ends");
        self.due = output.held;
        if had_one && self.due.is_none() {
            self.taken_at.push(step);
        }
        let rounds = match &self.module.side {
            Half::Reference(side) => side.rounds_in_work().count(),
            Half::Corrector(side) => side.rounds_in_work().count(),
        };
        self.rounds_max = self.rounds_max.max(rounds);
        for action in output.actions {
            if let Action::Prepare(block) | Action::Store(block) = action {
                self.keys.push(block.key);
            }
        }
        self.finished = output.finished;
        PeerInput { payload: output.payload.into(), authenticated: output.close_round }
    }
}

/// Both ends on this many frames of light, to the end.
fn run(frames: u64, round_frames: u64) -> [End; 2] {
    let (emitter, mut ends) = (emitter(), [Role::Matcher, Role::Announcer].map(|role| End::new(role, round_frames)));
    let (mut said, mut next) = ([None, None], 0);
    for step in 0.. {
        assert!(step < 100_000, "the run does not end");
        if ends.iter().all(|end| end.due.is_none()) && next < frames {
            let halves = emitter.slice(next, 0, 1).halves;
            ends.iter_mut().zip(&halves).for_each(|(end, half)| end.due = Some(frame(next, half)));
            next += 1;
        }
        let [one, other] = &mut ends;
        let heard = std::mem::take(&mut said);
        let [from_one, from_other] = heard;
        said = [Some(one.step(step, from_other)), Some(other.step(step, from_one))];
        if one.finished || other.finished {
            break;
        }
    }
    ends
}

#[test]
fn light_waits_for_rounds_in_work_where_a_round_has_few_frames_and_none_is_lost() {
    let [corrector, reference] = run(12, 1);
    assert_eq!(corrector.taken_at, reference.taken_at);
    assert_eq!(corrector.taken_at.len(), 12, "each frame once");
    assert!(corrector.rounds_max.max(reference.rounds_max) <= 4, "{}", corrector.rounds_max);
    assert_eq!((corrector.keys.len(), reference.keys.len()), (12, 12));
    for (own, twin) in corrector.keys.iter().zip(&reference.keys) {
        assert!(own.len() > 1000 && own.ct_eq(twin));
    }
    // A round is done long before as many steps are over as would pass with frames of 20 ms.
    let steps = corrector.taken_at.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(steps.clone().max() > Some(10) && steps.max() < Some(500), "{:?}", corrector.taken_at);
}

#[test]
fn light_waits_for_nothing_where_a_round_has_many_frames() {
    let [corrector, reference] = run(64, 32);
    for end in [corrector, reference] {
        assert_eq!(end.taken_at, (0..64).collect::<Vec<u64>>());
    }
}
