//! Which orders are taken.

use proto::fault::v1::AttackKind;
use proto::fault::v1::fault::What;

use super::{
    CLOCK_STEP_MIN_PS, DELAY_MAX_MS, DESCRIPTION_CHARS, FAULTS_MAX, FRAMES_MAX, ID_CHARS, Kind, LOSS_MAX_DB, Order,
    Place, TIME_MAX_PS,
};

/// Why an order is not taken.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum Refusal {
    #[error("a fault's ID has 1 to {ID_CHARS} of a-z, 0-9 and `-`")]
    Id,
    #[error("a description is one line of at most {DESCRIPTION_CHARS} characters")]
    Description,
    #[error("the order names no fault")]
    Nothing,
    #[error("a {kind} cannot suffer this")]
    NotHere { kind: &'static str },
    #[error("a step of the clock would change nothing here: at the fidelity of counts no clock is simulated")]
    NoClock,
    #[error("{what} must be {expected}")]
    Range { what: &'static str, expected: String },
    #[error("only faults of light and steps of a clock can be scheduled: everything else goes by wall time")]
    NotScheduled,
    #[error("simulated time has passed {asked_s} s already: it is {now_s} s")]
    Past { asked_s: f64, now_s: f64 },
    #[error("a fault `{0}` is there already")]
    Known(String),
    #[error("more than {FAULTS_MAX} faults at a time")]
    TooMany,
    #[error("cannot keep the fault for a restart: {0}")]
    Record(String),
}

/// The fault of an order that this kind of service can suffer.
pub(super) fn check<'o>(order: &'o Order, place: &Place) -> Result<&'o What, Refusal> {
    let id = order.id.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if order.id.is_empty() || order.id.len() > ID_CHARS || !id {
        return Err(Refusal::Id);
    }
    let line = order.description.chars().all(|c| !c.is_control());
    if order.description.chars().count() > DESCRIPTION_CHARS || !line {
        return Err(Refusal::Description);
    }
    if order.at_ps > TIME_MAX_PS || order.duration_ps > TIME_MAX_PS {
        return Err(range("a time", "at most 53 days"));
    }
    let what = order.fault.what.as_ref().ok_or(Refusal::Nothing)?;
    if order.at_ps > 0 && !is_simulated(what) {
        return Err(Refusal::NotScheduled);
    }
    let here = match what {
        What::Loss(_) => place.kind == Kind::Source,
        What::ClockStep(_) | What::ClockStop(_) => place.kind == Kind::Detector,
        What::DiskFull(_) => !matches!(place.kind, Kind::Source | Kind::Pacer),
        What::Partition(_) => matches!(place.kind, Kind::Channel | Kind::Kms | Kind::Relay),
        What::Stop(_) => true,
        What::Attack(_) => place.kind == Kind::Channel,
    };
    if !here {
        return Err(Refusal::NotHere { kind: name(place.kind) });
    }
    if matches!(what, What::ClockStep(_)) && !place.has_clock {
        return Err(Refusal::NoClock);
    }
    check_figures(what, place)?;
    Ok(what)
}

fn check_figures(what: &What, place: &Place) -> Result<(), Refusal> {
    match what {
        What::Loss(loss) if !matches!(loss.outputs[..], [0] | [1] | [0, 1]) => Err(range("outputs", "0, 1 or both")),
        What::Loss(loss) if !loss.cut && !(f64::MIN_POSITIVE..=LOSS_MAX_DB).contains(&loss.loss_db) => {
            Err(range("a loss", &format!("more than 0 and at most {LOSS_MAX_DB} dB; more is a cut")))
        }
        What::ClockStep(step) if !(CLOCK_STEP_MIN_PS..=place.epoch_ps).contains(&step.by_ps.unsigned_abs()) => {
            let limit = place.epoch_ps as f64 * 1e-9;
            Err(range("a step of a clock", &format!("1 ns to one epoch, {limit} ms, either way")))
        }
        What::Partition(partition) if partition.site == place.site => Err(range("the site", "another one")),
        What::Attack(attack) if attack.kind() == AttackKind::Unspecified => {
            Err(range("an attack", "tamper, inject, replay, reorder, drop or delay"))
        }
        What::Attack(attack) if !(1..=FRAMES_MAX).contains(&attack.frames) => {
            Err(range("the number of frames", &format!("1 to {FRAMES_MAX}")))
        }
        What::Attack(attack) if attack.delay_ms > DELAY_MAX_MS => {
            Err(range("a delay", &format!("at most {DELAY_MAX_MS} ms")))
        }
        _ => Ok(()),
    }
}

fn range(what: &'static str, expected: &str) -> Refusal {
    Refusal::Range { what, expected: expected.to_owned() }
}

/// Whether a fault goes by simulated time.
pub(super) fn is_simulated(what: &What) -> bool {
    matches!(what, What::Loss(_) | What::ClockStep(_))
}

/// In one word, for spans.
pub(super) fn kind(what: &What) -> &'static str {
    match what {
        What::Loss(loss) if loss.cut => "cut",
        What::Loss(_) => "loss",
        What::ClockStep(_) => "clock-step",
        What::ClockStop(_) => "clock-stop",
        What::DiskFull(_) => "disk-full",
        What::Partition(_) => "partition",
        What::Stop(_) => "stop",
        What::Attack(_) => "attack",
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Source => "source",
        Kind::Detector => "detector",
        Kind::Transmitter => "transmitter",
        Kind::Channel => "channel",
        Kind::Kms => "key store",
        Kind::Relay => "relay",
        Kind::Pacer => "pacer",
    }
}
