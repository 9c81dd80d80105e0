//! What only a cluster needs to know.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many services share a container on Kubernetes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Packing {
    /// A container for each service: the modules of a link end in one pod, the key store and relay of a site in another.
    #[default]
    Service,
    /// One container with everything of a site.
    Site,
    /// One container with the whole network.
    Topology,
}

/// What becomes of volumes, and of the secrets without which they cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They stay, and serve again when what they belonged to comes back.
    #[default]
    Retain,
    /// They are deleted with what they belong to.
    Delete,
}
