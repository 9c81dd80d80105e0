//! Light at the fidelity of counts: the law that a source draws by, epoch by epoch, and what such a link cannot be.

use photonics::config::Arm;
use photonics::expect::moment::{self, Turned};
use photonics::expect::{math, predict};
use photonics::nature::counts::{Law, LawError, SLICE_BITS};

use super::space::Seen;
use super::{CountedPairs, CountedPulses, Counts, RunOptions, estimate, expected, links, run_plan};
use crate::diagnostic::Severity;
use crate::document::{Link, Spec, Topology};
use crate::resolve::{LinkKind, resolve};

/// Most slices of an epoch. Each end gets its part of all of them in one message.
pub const SLICES_MAX: u32 = 16;

/// What a link is in one epoch, as far as its law depends on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditions {
    /// Of each arm, what faults add included; infinite where it is cut.
    pub losses_db: Vec<f64>,
    /// Power of the source relative to nominal, from its set-point and from what was scheduled.
    pub power: f64,
    /// What nobody holds: the sum of the phases, and the polarisation that arrives at each output.
    pub phase_rad: Option<f64>,
    pub turned: [Option<Turned>; 2],
    /// Clicks per second that other light makes at each detector: of links through free space.
    pub background_hz: f64,
}

/// What both outputs and faults tell of an epoch.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// When it begins.
    pub t_s: f64,
    /// Of the arms.
    pub losses_db: &'a [f64],
    /// What faults add on the way to either output.
    pub added_db: [f64; 2],
    /// Set-point of the power of pairs.
    pub pump: f64,
    /// By output.
    pub phases_rad: [f64; 2],
    pub polarisations_rad: [[f64; 2]; 2],
}

impl Counts {
    /// What of an epoch the law depends on: the same as long as nothing changes that it sees.
    pub fn conditions(&self, told: &Told<'_>) -> Conditions {
        let Told { t_s, losses_db, added_db, pump, phases_rad, polarisations_rad } = *told;
        let (arms, steps, loops) = match self {
            Counts::Pairs(counted) => {
                let CountedPairs { light, sifting } = &**counted;
                (&light.arms[..], &light.emitter.steps, (sifting.loops.polarisation, sifting.loops.phase))
            }
            Counts::Pulses(counted) => {
                let CountedPulses { light, sifting, .. } = &**counted;
                let arm = std::slice::from_ref(&light.arm);
                (arm, &light.transmitter.steps, (sifting.loops.polarisation, sifting.loops.phase))
            }
        };
        let (polarisation_held, phase_held) = loops;
        let seen = match self {
            Counts::Pulses(counted) => counted.space.as_ref().map(|space| space.seen(t_s)),
            Counts::Pairs(_) => None,
        };
        let (way_db, background_hz) = seen.map_or((0.0, 0.0), |seen| (seen.loss_db, seen.background_hz));
        let turned = |output: usize, arm: &Arm| {
            (!polarisation_held).then(|| Turned::at(&arm.polarisation, t_s, polarisations_rad[output]))
        };
        let (losses_db, turned, pump) = match (self, arms) {
            (Counts::Pairs(counted), [first, second]) => {
                let losses = losses_db.iter().zip(added_db).map(|(loss, added)| loss + added);
                let pump_max = counted.light.emitter.pump_max;
                (losses.collect(), [turned(0, first), turned(1, second)], pump.max(0.0).min(pump_max))
            }
            // Pulses have one way, whichever end of it a fault names.
            (_, [arm, ..]) => {
                let added_db = added_db[0].max(added_db[1]);
                (losses_db.iter().map(|loss| loss + way_db + added_db).collect(), [None, turned(1, arm)], 1.0)
            }
            (_, []) => (Vec::new(), [None, None], 1.0),
        };
        let phase_rad = (!phase_held).then_some(phases_rad[0] + phases_rad[1]);
        Conditions { losses_db, power: pump * moment::power(steps, t_s), phase_rad, turned, background_hz }
    }

    /// As planned, with the most light that the pump and what is scheduled may give.
    pub(super) fn brightest(&self, pump: f64) -> Conditions {
        let (losses_db, steps) = match self {
            Counts::Pairs(counted) => {
                let losses: Vec<f64> = counted.light.arms.iter().map(|arm| arm.loss_db).collect();
                (losses, &counted.light.emitter.steps)
            }
            Counts::Pulses(counted) => {
                let way_db = counted.space.as_ref().map_or(0.0, |space| space.best.loss_db);
                (vec![counted.light.arm.loss_db + way_db], &counted.light.transmitter.steps)
            }
        };
        let background_hz = match self {
            Counts::Pulses(counted) => counted.space.as_ref().map_or(0.0, |space| space.best.background_hz),
            Counts::Pairs(_) => 0.0,
        };
        let scheduled = steps.iter().map(|step| moment::power(steps, step.at_s)).fold(1.0, f64::max);
        Conditions { losses_db, power: pump * scheduled, phase_rad: None, turned: [None, None], background_hz }
    }

    /// The law of the counts under these conditions.
    pub fn law(&self, conditions: &Conditions) -> Result<Law, LawError> {
        match self {
            Counts::Pairs(counted) => counted.law(conditions),
            Counts::Pulses(counted) => counted.law(conditions),
        }
    }
}

/// Loss of an arm and of what polarisation costs in it.
fn loss_db(conditions: &Conditions, arm: usize, output: usize) -> f64 {
    let turned_db = conditions.turned[output].map_or(0.0, |turned| turned.loss_db);
    conditions.losses_db.get(arm).copied().unwrap_or(0.0) + turned_db
}

impl CountedPairs {
    fn law(&self, conditions: &Conditions) -> Result<Law, LawError> {
        let mut light = self.light.clone();
        for (end, arm) in light.arms.iter_mut().enumerate() {
            arm.loss_db = loss_db(conditions, end, end);
        }
        let mut inputs = estimate::inputs(&light, &self.sifting);
        inputs.pair_rate_hz *= conditions.power;
        if let Some(phase_rad) = conditions.phase_rad {
            moment::with_phase(&mut inputs, phase_rad);
        }
        Law::pairs(&predict(&inputs))
    }
}

impl CountedPulses {
    fn law(&self, conditions: &Conditions) -> Result<Law, LawError> {
        let mut light = self.light.clone();
        // More power is less loss: it changes what arrives, not what a proof takes for granted.
        light.arm.loss_db = loss_db(conditions, 0, 1) + math::loss_db(conditions.power);
        let turned = conditions.turned[1].as_ref();
        moment::turn(&mut light.transmitter, &light.analyser, turned, conditions.phase_rad);
        let seen = Seen { loss_db: 0.0, background_hz: conditions.background_hz };
        let detectors = seen.lit(&self.detectors, light.transmitter.repetition_rate_hz);
        Law::prepared(&expected::inputs(&light, &detectors, &self.sifting))
    }
}

/// Why a link cannot be one of counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub message: String,
    pub expected: String,
}

/// What is wrong with a link at this fidelity, if anything is. It must be good otherwise.
pub(crate) fn problem(spec: &Spec, link: &Link) -> Option<Problem> {
    let run = run_plan(spec, &RunOptions::default()).of(link);
    let (counts, pump) = match resolve(link).ok()? {
        LinkKind::Entangled(kind) => {
            if !link.acquisition.correlator {
                let message = "no correlator, where counts search for no clock".into();
                return Some(Problem { message, expected: "tags, or acquisition.correlator: true".into() });
            }
            let pump = kind.source.pump_max.max(1.0);
            (Counts::Pairs(Box::new(links::counted_pairs(kind, run))), pump)
        }
        LinkKind::Prepared(kind) => (Counts::Pulses(Box::new(links::counted_pulses(&kind, run))), 1.0),
        // It is planned, and runs at no fidelity.
        LinkKind::TwinField(_) => return None,
    };
    let law = match counts.law(&counts.brightest(pump)) {
        Ok(law) => law,
        Err(error) => return Some(Problem { message: error.to_string(), expected: "tags".into() }),
    };
    let (epoch_s, most) = (run.epoch_ps as f64 * 1e-12, SLICE_BITS * f64::from(SLICES_MAX));
    let bits = law.sifted_hz() * epoch_s;
    let field = if link.epoch.is_some() { "an epoch" } else { "a run.epoch" };
    (bits > most).then(|| Problem {
        message: format!("{bits:.2e} sifted bits in an epoch of {epoch_s} s at the fidelity of counts"),
        expected: format!("at most {most:.2e}: {field} of less than {:.3} s, or tags", epoch_s * most / bits),
    })
}

/// What the command line asks for and a document that is good by itself cannot do: rules that a fidelity has are those
/// of the links that have it.
pub fn refusals(topology: &Topology, options: &RunOptions) -> Vec<String> {
    let Some(fidelity) = options.fidelity else { return Vec::new() };
    let found = crate::checks::check_at(topology, fidelity).into_iter();
    let errors = found.filter(|found| found.severity == Severity::Error);
    errors
        .map(|found| {
            let expected = found.expected.map(|expected| format!("; expected {expected}")).unwrap_or_default();
            format!("{}: {}{expected}", named(topology, &found.path), found.message)
        })
        .collect()
}

/// A place in a document as people call it who do not see its lines.
fn named(topology: &Topology, path: &str) -> String {
    let of_link = || {
        let (index, field) = path.strip_prefix("spec.links[")?.split_once(']')?;
        let link = &topology.spec.links.get(index.parse::<usize>().ok()?)?.name;
        Some(format!("link {link}: {}", field.strip_prefix('.').unwrap_or(field)))
    };
    of_link().unwrap_or_else(|| path.to_owned())
}
