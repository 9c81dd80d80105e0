//! `qkdnet fault`: what can be typed.

use clap::{Args, Subcommand, ValueEnum};
use topology::quantity;

use super::{OutputArgs, PlaceArgs, simulated_time};

#[derive(Clone, Debug, Subcommand)]
pub enum FaultCommand {
    /// Cut the fibre of a link, or of one arm: no light comes through. In simulated time.
    Cut(CutArgs),
    /// Add loss to the arms of a link. In simulated time.
    Loss(LossArgs),
    /// Set the local clock of a link's end wrong by a step. In simulated time.
    ///
    /// A negative step is a clock that stood still for so long. The module is told nothing: it has to notice, and to
    /// find the peer's clock again.
    StepClock(StepClockArgs),
    /// Stop the local clock of a link's end: nothing is stamped until it runs again, set right. In wall time.
    StopClock(EndArgs),
    /// Fill a disk: what is written there fails for want of space. In wall time.
    FillDisk(FillDiskArgs),
    /// Cut two sites off from each other: channels, key stores and relays. In wall time.
    ///
    /// Light goes on: it has a fibre of its own.
    Partition(PartitionArgs),
    /// Crash a service; it comes back when the time is over. In wall time.
    Stop(StopArgs),
    /// Strike at frames of a link's classical channel, as somebody does who sits in the middle.
    Attack(AttackArgs),
    /// List faults.
    List(ListArgs),
    /// End faults before their time.
    Clear(ClearArgs),
}

/// Where the network runs.
#[derive(Clone, Debug, Args)]
pub struct NetworkArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// How long, and under which name.
#[derive(Clone, Debug, Args)]
pub struct LastingArgs {
    #[command(flatten)]
    pub network: NetworkArgs,
    /// How long it lasts, such as `30s` [default: until it is cleared].
    #[arg(long = "for", value_name = "TIME", value_parser = simulated_time)]
    pub duration: Option<quantity::Duration>,
    /// Name by which it is listed and cleared [default: one is drawn].
    #[arg(long, value_name = "NAME")]
    pub id: Option<String>,
}

/// The same, for what goes by simulated time.
#[derive(Clone, Debug, Args)]
pub struct SimulatedArgs {
    #[command(flatten)]
    pub lasting: LastingArgs,
    /// Simulated time at which it begins, such as `120s` [default: now].
    ///
    /// A fault that is scheduled is input of the run, as a seed is: equal ones give equal keys.
    #[arg(long, value_name = "TIME", value_parser = simulated_time)]
    pub at: Option<quantity::Duration>,
}

#[derive(Clone, Debug, Args)]
pub struct CutArgs {
    /// Link of the topology.
    pub link: String,
    /// Site at the end of the arm that is cut [default: both arms].
    #[arg(long, value_name = "SITE")]
    pub arm: Option<String>,
    #[command(flatten)]
    pub when: SimulatedArgs,
}

#[derive(Clone, Debug, Args)]
pub struct LossArgs {
    /// Link of the topology.
    pub link: String,
    /// How much more, such as `3dB`.
    #[arg(value_parser = loss)]
    pub loss: quantity::Loss,
    /// Site at the end of the arm that it is added to [default: both arms, so much to each].
    #[arg(long, value_name = "SITE")]
    pub arm: Option<String>,
    #[command(flatten)]
    pub when: SimulatedArgs,
}

#[derive(Clone, Debug, Args)]
pub struct StepClockArgs {
    /// Link of the topology.
    pub link: String,
    /// Site of the clock.
    pub site: String,
    /// How much the clock goes ahead, such as `3ms` or `-200us`; an epoch at most.
    #[arg(value_parser = step, allow_hyphen_values = true)]
    pub by: quantity::TimeOffset,
    #[command(flatten)]
    pub when: SimulatedArgs,
}

#[derive(Clone, Debug, Args)]
pub struct EndArgs {
    /// Link of the topology.
    pub link: String,
    /// Site at one of its ends.
    pub site: String,
    #[command(flatten)]
    pub lasting: LastingArgs,
}

/// What is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stored {
    /// The key store of a site.
    KeyStore,
    /// The records of a site's relay.
    Relay,
    /// The blocks of a link's end.
    Blocks,
    /// The authentication reserve of a link's end.
    Reserve,
}

#[derive(Clone, Debug, Args)]
pub struct FillDiskArgs {
    /// What is on the disk.
    pub what: Stored,
    /// Site of the disk.
    pub site: String,
    /// Link, for blocks and reserves; needed where the site ends several.
    #[arg(long, value_name = "LINK")]
    pub link: Option<String>,
    #[command(flatten)]
    pub lasting: LastingArgs,
}

#[derive(Clone, Debug, Args)]
pub struct PartitionArgs {
    /// One site.
    pub site: String,
    /// The other one.
    pub other: String,
    #[command(flatten)]
    pub lasting: LastingArgs,
}

#[derive(Clone, Debug, Args)]
pub struct StopArgs {
    /// Service by its name in the plan, such as `kms-sophia`.
    pub service: String,
    #[command(flatten)]
    pub lasting: LastingArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Attack {
    /// Change one bit.
    Tamper,
    /// Send a changed copy before the frame itself.
    Inject,
    /// Send an old frame again.
    Replay,
    /// Hold a frame back until the next one has gone.
    Reorder,
    Drop,
    Delay,
}

#[derive(Clone, Debug, Args)]
pub struct AttackArgs {
    /// Link of the topology.
    pub link: String,
    /// Site whose frames to the peer are struck.
    pub site: String,
    pub attack: Attack,
    /// Frames, from the next one on.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub frames: u32,
    /// How long each frame is held back by `delay`, in wall time.
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = simulated_time)]
    pub by: quantity::Duration,
    #[command(flatten)]
    pub network: NetworkArgs,
}

#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub network: NetworkArgs,
}

#[derive(Clone, Debug, Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["ids", "all"])))]
pub struct ClearArgs {
    /// Names of faults, as `qkdnet fault list` says them.
    #[arg(value_name = "NAME")]
    pub ids: Vec<String>,
    /// All of them.
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub network: NetworkArgs,
}

fn loss(text: &str) -> Result<quantity::Loss, String> {
    let loss: quantity::Loss = text.parse().map_err(|error| format!("{error}; write a loss such as 3dB"))?;
    if loss.value() == 0.0 { Err("must be more than nothing".to_owned()) } else { Ok(loss) }
}

fn step(text: &str) -> Result<quantity::TimeOffset, String> {
    text.parse().map_err(|error| format!("{error}; write a step such as 3ms or -200us"))
}
