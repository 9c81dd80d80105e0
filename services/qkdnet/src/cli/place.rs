//! Where a network is that a command looks at.

use std::path::PathBuf;

use clap::Args;

/// Where a network is: on this machine or on a cluster.
#[derive(Clone, Debug, Args)]
pub struct PlaceArgs {
    /// Data directory of a run.
    #[arg(long, value_name = "DIR", required_unless_present = "topology")]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// A topology on a Kubernetes cluster, reached as `kubectl` reaches it.
#[derive(Clone, Debug, Args)]
pub struct ClusterArgs {
    /// Topology on a Kubernetes cluster, instead of a data directory.
    #[arg(long, value_name = "NAME", conflicts_with = "data")]
    pub topology: Option<String>,
    /// Namespace of the topology [default: that of the context].
    #[arg(long, short = 'n', value_name = "NAMESPACE", requires = "topology")]
    pub namespace: Option<String>,
    /// Context of the kubeconfig [default: the current one].
    #[arg(long, value_name = "CONTEXT", requires = "topology")]
    pub context: Option<String>,
}

/// The place that was named.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    Data(&'a std::path::Path),
    Cluster(&'a ClusterArgs),
}

impl PlaceArgs {
    pub fn place(&self) -> Place<'_> {
        match &self.data {
            Some(data) => Place::Data(data),
            None => Place::Cluster(&self.cluster),
        }
    }
}
