//! What can be typed about containers.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// What the services of a network run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum On {
    /// This machine, as `--isolation` says.
    #[default]
    Machine,
    /// Containers of Docker or Podman, one per service.
    Containers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EngineName {
    Docker,
    Podman,
}

impl From<EngineName> for runner::containers::EngineName {
    fn from(name: EngineName) -> Self {
        match name {
            EngineName::Docker => Self::Docker,
            EngineName::Podman => Self::Podman,
        }
    }
}

#[derive(Clone, Debug, Default, Args)]
pub struct ContainerArgs {
    /// What services run on.
    #[arg(long, value_enum, default_value_t, value_name = "WHAT", conflicts_with = "isolation")]
    pub on: On,
    /// Container engine [default: the first that answers].
    #[arg(long, value_enum, value_name = "ENGINE", requires = "on")]
    pub engine: Option<EngineName>,
    /// Image that holds this program; `make image` builds it [default: qkdnet:VERSION].
    #[arg(long, value_name = "IMAGE", requires = "on")]
    pub image: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct DownArgs {
    /// Topology file, for the default data directory.
    #[arg(required_unless_present = "data")]
    pub file: Option<PathBuf>,
    /// Data directory of the network.
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    pub data: Option<PathBuf>,
    /// Container engine [default: every one that answers].
    #[arg(long, value_enum, value_name = "ENGINE")]
    pub engine: Option<EngineName>,
}

#[derive(Clone, Debug, Args)]
pub struct ReapArgs {
    #[arg(long, value_enum)]
    pub engine: EngineName,
    /// Label of the run.
    #[arg(long)]
    pub run: String,
}
