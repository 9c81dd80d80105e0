//! `qkdnet up` and `qkdnet verify`: how a network is run.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use photonics::tagfile::Format;
use runner::anchors::Anchors;
use topology::document::{Fidelity, Speed};
use topology::quantity;

use super::containers::ContainerArgs;
use super::place::ClusterArgs;
use super::{Isolation, OutputArgs, bytes, fidelity, simulated_time, speed};

/// How a network is run; shared by `up` and `verify`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Where each service runs.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub isolation: Isolation,
    #[command(flatten)]
    pub containers: ContainerArgs,
    /// Simulated time after which the run ends, such as `120s` or `10min`.
    #[arg(long = "for", value_name = "TIME", value_parser = simulated_time)]
    pub duration: Option<quantity::Duration>,
    /// Simulated seconds per second of wall time, or `max`.
    #[arg(long, value_name = "PACE", value_parser = speed)]
    pub speed: Option<Speed>,
    /// Makes the run repeatable and its keys worthless.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How much of the light is simulated on every link: `tags` (each click) or `counts` (its statistics).
    #[arg(long, value_name = "FIDELITY", value_parser = fidelity)]
    pub fidelity: Option<Fidelity>,
    /// Directory for keys, reserves and traces [default: a folder of the topology in `qkdnet-data`].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub state: StateArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What is kept outside the data, so that data that are put back are noticed.
#[derive(Clone, Debug, Args)]
pub struct StateArgs {
    /// Directory for what must not be put back with the data [default: $XDG_STATE_HOME/qkdnet, or
    /// ~/.local/state/qkdnet].
    #[arg(long, env = "QKDNET_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

impl StateArgs {
    pub fn anchors(&self) -> Anchors {
        Anchors::find(self.state_dir.as_deref())
    }
}

impl RunArgs {
    /// The data directory, by default one per topology.
    pub fn data_dir(&self, topology: &str) -> PathBuf {
        self.data.clone().unwrap_or_else(|| default_data_dir(topology))
    }

    /// What the command line overrides in the topology's `run`.
    pub fn overrides(&self) -> topology::plan::RunOptions {
        topology::plan::RunOptions {
            seed: self.seed,
            speed: self.speed,
            duration_ps: self.duration.map(|duration| duration.rounded()),
            fidelity: self.fidelity,
            pacer_of_one: false,
        }
    }
}

pub fn default_data_dir(topology: &str) -> PathBuf {
    PathBuf::from("qkdnet-data").join(topology)
}

#[derive(Clone, Debug, Args)]
pub struct UpArgs {
    /// Topology file; `-` is standard input.
    pub file: PathBuf,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub record: RecordArgs,
}

/// Raw tags to files: 64-bit little-endian words that count 1/256 ns, about 110 MB per simulated second of a 50 km link.
#[derive(Clone, Debug, Args)]
pub struct RecordArgs {
    /// Write each detector's raw time tags into this directory, and what transmitters choose, which is raw key; what is
    /// there is not overwritten.
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
    /// How they are written.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT", requires = "record")]
    pub record_format: RecordFormat,
    /// Simulated time to record.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = simulated_time, requires = "record")]
    pub record_for: quantity::Duration,
    /// Size at which the recording of one detector node ends, such as `500MB`.
    #[arg(long, value_name = "SIZE", default_value = "1GB", value_parser = bytes, requires = "record")]
    pub record_limit: u64,
}

/// How raw time tags are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RecordFormat {
    /// 64-bit words, low half first: time in 1/256 ns, detectors
    #[default]
    A1,
    /// The same with the high half first
    A1HighFirst,
    /// The raw form of older instruments: high half first, time in 1/8 ns (loses resolution)
    #[value(name = "raw-125ps")]
    Raw125ps,
    /// An a1 word a line, as text
    A2,
}

impl RecordFormat {
    /// How such a file's name ends.
    pub fn extension(self) -> &'static str {
        match self {
            Self::A1 | Self::A1HighFirst => "a1",
            Self::Raw125ps => "raw",
            Self::A2 => "a2",
        }
    }
}

impl From<RecordFormat> for Format {
    fn from(format: RecordFormat) -> Self {
        match format {
            RecordFormat::A1 => Self::A1,
            RecordFormat::A1HighFirst => Self::A1HighFirst,
            RecordFormat::Raw125ps => Self::Raw125ps,
            RecordFormat::A2 => Self::A2,
        }
    }
}

#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// Topology file; `-` is standard input.
    #[arg(required_unless_present = "topology", conflicts_with = "topology")]
    pub file: Option<PathBuf>,
    /// On a cluster nothing is started: what runs there is watched for the time of `--for`.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    #[command(flatten)]
    pub run: RunArgs,
    /// Only these links; may be repeated.
    #[arg(long = "link", value_name = "LINK")]
    pub links: Vec<String>,
}
