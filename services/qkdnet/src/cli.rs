//! What can be typed.

pub mod containers;
pub mod fault;
mod operator;
mod place;
mod replay;
mod up;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use topology::document::{Fidelity, Speed};
use topology::plan::estimate::RECONCILIATION_EFFICIENCY;
use topology::quantity::{self, Decimal};

use self::containers::{DownArgs, ReapArgs};
pub use self::operator::{HostArgs, OperatorCommand, OperatorRunArgs, PodArgs, RenderArgs};
pub use self::place::{ClusterArgs, Place, PlaceArgs};
pub use self::replay::ReplayArgs;
pub use self::up::{RecordArgs, RunArgs, StateArgs, UpArgs, VerifyArgs, default_data_dir};

/// A quantum-key-distribution network that distils real key from simulated light.
#[derive(Debug, Parser)]
#[command(name = "qkdnet", version, propagate_version = true, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    /// What to log, such as `info` or `warn,module=debug`. Logs go to standard error.
    #[arg(long, global = true, env = "QKDNET_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a network on this machine and distil key until it is stopped.
    Up(UpArgs),
    /// End a network that runs, and remove the containers that a run has left.
    Down(DownArgs),
    /// Run a network, then compare what was measured with what was published.
    Verify(VerifyArgs),
    /// Distil key from recorded time tags of the ends of a link.
    Replay(ReplayArgs),
    /// Say what the formulae predict for each link, without running anything.
    Plan(PlanArgs),
    /// Report every problem of topology files.
    Validate(ValidateArgs),
    /// Print the JSON Schema of topology files.
    Schema,
    /// Print length and SHA-256 of all distilled key of each link end, or of what the key stores hold.
    Digest(DigestArgs),
    /// Print where every bit of each block went, with sums checked.
    Ledger(LedgerArgs),
    /// Show the way of one block, or of one delivered key, as trees of spans.
    Trace(TraceArgs),
    /// Put a fresh secret into one end's exhausted authentication reserve; do it at both ends.
    ///
    /// A channel without authentication key closes: its link says `authentication-exhausted` and stores nothing. Make
    /// a secret that nobody has seen (`head -c 16384 /dev/urandom > fresh.secret`), bring it to both sites by a way
    /// that can be trusted, and give it to both channel endpoints while they run. One that was used before is refused.
    /// Under `qkdnet up --isolation process` the configurations are DATA/.qkdnet/run/channel-LINK-SITE.yaml.
    Rekey(RekeyArgs),
    /// Take keys as an application does, over ETSI GS QKD 014.
    #[command(subcommand)]
    Key(KeyCommand),
    /// List the delivered keys that a compromised relay at a site would have seen.
    Exposure(ExposureArgs),
    /// Make a data directory that was put back from a copy safe to run, by voiding what may have been used.
    ///
    /// A network that was put back would hand out keys again that it has handed out since the copy. This gives up what
    /// the key stores hold, puts a fresh authentication secret at both ends of every link, and drops what was under way.
    /// What both applications of a key hold stays good. It may be repeated.
    ///
    /// With `--topology` the operator of a cluster does it: it stops the pods, gives up their volumes and starts them again.
    Restore(RestoreArgs),
    /// Put the key store of a site under a new master key.
    Rotate(RotateArgs),
    /// Certificates for applications (SAEs).
    #[command(subcommand)]
    Sae(SaeCommand),
    /// Bring faults into a running network whose topology allows them (`faults: {allowed: true}`).
    #[command(subcommand)]
    Fault(fault::FaultCommand),
    /// Say where the key stores of a running network are, and which applications may ask them.
    Status(StatusArgs),
    /// Print the span files of a run, one span a line.
    #[command(hide = true)]
    Spans(SpansArgs),
    /// Ask a service whether it does its job.
    Health(HealthArgs),
    /// Print the Kubernetes objects of a topology, for clusters without the operator.
    ///
    /// Secrets are drawn at every call: what was rendered once and applied is kept by `--without-secrets`.
    Render(RenderArgs),
    /// Networks on Kubernetes: the operator, and the definition of its objects.
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// Print completions for a shell.
    Completions(CompletionsArgs),
    /// Run several services in one process.
    #[command(hide = true)]
    Host(HostArgs),
    /// Run one photon source.
    Source(ServiceArgs),
    /// Run one detector node: instrument and module of a link end.
    Detector(ServiceArgs),
    /// Run one transmitter: what chooses the pulses of a prepared link, and the module of that end.
    Transmitter(ServiceArgs),
    /// Run one endpoint of a classical authenticated channel.
    Channel(ServiceArgs),
    /// Run the key store of one site.
    Kms(ServiceArgs),
    /// Run the trusted-node relay of one site.
    Relay(ServiceArgs),
    /// Run the pacer of a network, which keeps its links at one time.
    Pacer(ServiceArgs),
    /// Take spans and metrics of other processes over OTLP, keep the spans for `trace` and tell the metrics.
    Collect(CollectArgs),
    /// Remove the containers of a run when whoever started them has ended.
    #[command(hide = true)]
    Reap(ReapArgs),
}

/// Text for people or JSON for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Isolation {
    /// All services as tasks of this process; messages stay in memory.
    #[default]
    Tasks,
    /// Each service in a process of its own, over gRPC with mutual TLS.
    Process,
}

#[derive(Clone, Debug, Args)]
pub struct OutputArgs {
    /// `json` prints one object a line.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Output,
}

#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    /// Topology file; `-` is standard input.
    pub file: PathBuf,
    /// Search the intensities, probabilities and basis bias (for pairs: the pump) with the longest key.
    #[arg(long)]
    pub optimise: bool,
    /// Length of the blocks to optimise, such as 20min; the round of each link unless given.
    #[arg(long, value_name = "TIME", value_parser = simulated_time, requires = "optimise")]
    pub block: Option<quantity::Duration>,
    /// Parities that reconciliation discloses, as a multiple of the Shannon limit.
    #[arg(long, value_name = "F", default_value_t = RECONCILIATION_EFFICIENCY, value_parser = efficiency)]
    pub efficiency: f64,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Clone, Debug, Args)]
pub struct ValidateArgs {
    /// Topology files; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Print the one topology with every definition in its places and every default.
    #[arg(long)]
    pub expand: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Clone, Debug, Args)]
pub struct DigestArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    /// What the key stores hold of each pool, an HMAC under a secret of the two sites. The network must not run.
    #[arg(long, requires = "data")]
    pub pools: bool,
    /// Of the first N blocks of each link alone: what the two ends of a link have in common while the network runs.
    #[arg(long, value_name = "N", conflicts_with = "pools")]
    pub first: Option<usize>,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Clone, Debug, Args)]
pub struct RestoreArgs {
    /// Data directory of the network, which must not run.
    #[arg(required_unless_present = "topology")]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Only say what would be void.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub state: StateArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Clone, Debug, Args)]
pub struct RotateArgs {
    /// Site of the key store.
    pub site: String,
    /// Data directory of the network, which must not run.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub struct LedgerArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    /// In a pod: what it has to say, for whoever puts the parts together.
    #[arg(long, value_enum, hide = true, requires = "data")]
    pub part: Option<LedgerPart>,
    /// Only this link.
    #[arg(long, value_name = "LINK")]
    pub link: Option<String>,
    /// Every block instead of the totals alone.
    #[arg(long)]
    pub blocks: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What a ledger is put together from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LedgerPart {
    Marks,
    Stores,
    Links,
}

#[derive(Clone, Debug, Args)]
pub struct TraceArgs {
    /// Number of a block, ID of a delivered key, or a trace ID of 32 hexadecimal digits.
    pub block: String,
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Link of the block; needed where several links have a block of this number.
    #[arg(long, value_name = "LINK")]
    pub link: Option<String>,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Clone, Debug, Args)]
pub struct SpansArgs {
    /// Data directory of a run.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub struct RekeyArgs {
    /// Configuration of the channel endpoint, as it was started with. Both ends need the same secret.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// File with the fresh secret, at least 32 bytes.
    #[arg(long, value_name = "FILE")]
    pub secret: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Clone, Debug, Args)]
pub struct ExposureArgs {
    /// Site of the relay.
    pub site: String,
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The site's own key store is elsewhere: what those here know of it.
    #[arg(long, hide = true)]
    pub elsewhere: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Clone, Debug, Subcommand)]
pub enum KeyCommand {
    /// Get new keys that a peer application can fetch by their IDs.
    Get(KeyGetArgs),
    /// Fetch the keys that a master application got, by their IDs.
    Fetch(KeyFetchArgs),
    /// Say how many keys there are for a pair of applications, and which sizes can be had.
    Status(KeyStatusArgs),
}

/// Whom to ask, and as which application.
#[derive(Clone, Debug, Args)]
pub struct KeyAccessArgs {
    /// Data directory of a network that runs on this machine.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Application to ask as.
    #[arg(long, value_name = "NAME")]
    pub sae: Option<String>,
    /// Key store to ask, as https://HOST:PORT, where it is on no data directory here.
    #[arg(long, value_name = "URL", requires_all = ["ca", "cert", "key"], conflicts_with_all = ["data", "topology"])]
    pub url: Option<String>,
    /// Certificate of the authority that the key store's certificate is from.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Certificate of the application.
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Private key of the application.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

#[derive(Clone, Debug, Args)]
pub struct KeyPrintArgs {
    /// Print keys to a terminal, too.
    #[arg(long)]
    pub show: bool,
    /// Print the SHA-256 of each key beside its ID instead of the key: what two applications may compare in the open.
    /// For keys of 128 bits or more.
    #[arg(long, conflicts_with_all = ["show", "out", "output"])]
    pub digest: bool,
    /// Write keys to this new file, readable by its owner alone, and print their IDs.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["show", "output"])]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Clone, Debug, Args)]
pub struct KeyGetArgs {
    #[command(flatten)]
    pub access: KeyAccessArgs,
    /// Application that will fetch the keys.
    #[arg(long, value_name = "SAE")]
    pub to: String,
    /// Further applications that may fetch the same keys.
    #[arg(long, value_name = "SAE")]
    pub also: Vec<String>,
    /// Keys.
    #[arg(long, value_name = "N")]
    pub number: Option<u32>,
    /// Bits of each key.
    #[arg(long, value_name = "BITS")]
    pub size: Option<u32>,
    #[command(flatten)]
    pub print: KeyPrintArgs,
}

#[derive(Clone, Debug, Args)]
pub struct KeyFetchArgs {
    #[command(flatten)]
    pub access: KeyAccessArgs,
    /// Application that got the keys.
    #[arg(long, value_name = "SAE")]
    pub from: String,
    /// Key IDs.
    #[arg(required_unless_present = "check", value_name = "KEY-ID")]
    pub ids: Vec<String>,
    /// Fetch the keys that `get --out` wrote to this file, and say whether they are the same.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ids", "show", "digest", "out", "output"])]
    pub check: Option<PathBuf>,
    #[command(flatten)]
    pub print: KeyPrintArgs,
}

#[derive(Clone, Debug, Args)]
pub struct KeyStatusArgs {
    #[command(flatten)]
    pub access: KeyAccessArgs,
    /// Application at the other end.
    #[arg(long, value_name = "SAE")]
    pub to: String,
}

#[derive(Clone, Debug, Subcommand)]
pub enum SaeCommand {
    /// Issue a client certificate from the topology's authority.
    New(SaeNewArgs),
}

#[derive(Clone, Debug, Args)]
pub struct SaeNewArgs {
    /// Name of the application; the topology says at which site it may ask.
    pub name: String,
    /// Data directory of the network.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Folder for the certificate and its key [default: beside those that `up` makes].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub struct HealthArgs {
    /// Configuration of the service, as it was started with.
    #[arg(long, value_name = "FILE", required_unless_present = "url")]
    pub config: Option<PathBuf>,
    /// Health over plain HTTP to ask instead, such as `http://operator:8080/readyz`.
    #[arg(long, value_name = "URL", conflicts_with_all = ["config", "service"])]
    pub url: Option<http::Uri>,
    /// Health service to ask: empty for the process, `qkdnet.link` for whether key flows.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub service: String,
}

#[derive(Clone, Debug, Args)]
pub struct CollectArgs {
    /// Address for OTLP over gRPC, without TLS.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4317")]
    pub listen: std::net::SocketAddr,
    /// Address for `/healthz`, and `/metrics` as Prometheus reads them.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9464")]
    pub metrics_listen: std::net::SocketAddr,
    /// Directory for spans; give it to `trace` as well.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub struct CompletionsArgs {
    /// Shell to complete for.
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[derive(Clone, Debug, Args)]
pub struct ServiceArgs {
    /// Configuration of the service.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// End when standard input does: whoever started this has gone.
    #[arg(long, hide = true)]
    pub tied: bool,
}

fn efficiency(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| (1.0..=3.0).contains(value));
    value.ok_or_else(|| "a number from 1 to 3, such as 1.1".to_owned())
}

fn simulated_time(text: &str) -> Result<quantity::Duration, String> {
    let time: quantity::Duration =
        text.parse().map_err(|error| format!("{error}; write a time such as 120s or 10min"))?;
    if time.rounded() == 0 { Err("must be more than nothing".to_owned()) } else { Ok(time) }
}

fn speed(text: &str) -> Result<Speed, String> {
    Speed::parse(text).ok_or_else(|| "write max, or simulated seconds per second such as 1".to_owned())
}

fn fidelity(text: &str) -> Result<Fidelity, String> {
    Fidelity::parse(text).ok_or_else(|| "write tags or counts".to_owned())
}

/// A size in bytes: a number and B, kB, MB or GB (powers of a thousand).
fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let power = match unit.trim() {
        "B" => 0,
        "kB" => 3,
        "MB" => 6,
        "GB" => 9,
        "TB" => 12,
        _ => return Err("write a size such as 500MB or 2GB".to_owned()),
    };
    let value: Decimal = number.parse().map_err(|_| "does not start with a number".to_owned())?;
    let total = value.scaled(1, power).map_or(0, Decimal::rounded);
    let fits = u64::try_from(total).ok().filter(|bytes| (1..=1_000_000_000_000_000).contains(bytes));
    fits.ok_or_else(|| "is not between 1 B and 1000 TB".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
