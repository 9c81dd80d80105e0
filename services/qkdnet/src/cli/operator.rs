//! What can be typed about pods: the operator, and the same objects as text.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What pods are made of; shared by `render` and `operator run`.
#[derive(Clone, Debug, Args)]
pub struct PodArgs {
    /// Image of every container.
    #[arg(long, env = "QKDNET_IMAGE", value_name = "IMAGE", default_value = concat!("qkdnet:", env!("CARGO_PKG_VERSION")))]
    pub image: String,
    /// When the image is pulled.
    #[arg(long, env = "QKDNET_IMAGE_PULL_POLICY", value_name = "POLICY", default_value = "IfNotPresent",
        value_parser = ["Always", "IfNotPresent", "Never"])]
    pub image_pull_policy: String,
    /// Secret with credentials for the image's registry; may be repeated.
    #[arg(long, env = "QKDNET_IMAGE_PULL_SECRETS", value_name = "NAME", value_delimiter = ',')]
    pub image_pull_secret: Vec<String>,
    /// Storage class of volumes [default: the cluster's].
    #[arg(long, env = "QKDNET_STORAGE_CLASS", value_name = "NAME")]
    pub storage_class: Option<String>,
    /// Size of the volume of a link end.
    #[arg(long, env = "QKDNET_LINK_END_VOLUME", value_name = "SIZE", default_value = "256Mi")]
    pub link_end_volume: String,
    /// Size of the volume of a site.
    #[arg(long, env = "QKDNET_SITE_VOLUME", value_name = "SIZE", default_value = "1Gi")]
    pub site_volume: String,
    /// OpenTelemetry collector of the services, as http://HOST:PORT.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// What services log, such as `info` or `warn,module=debug`.
    #[arg(long, env = "QKDNET_SERVICE_LOG", value_name = "FILTER")]
    pub service_log: Option<String>,
    /// Domain of the cluster's names.
    #[arg(long, env = "QKDNET_CLUSTER_DOMAIN", value_name = "DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
}

#[derive(Clone, Debug, Args)]
pub struct RenderArgs {
    /// Topology file; `-` is standard input.
    pub file: PathBuf,
    /// Namespace of the objects [default: the topology's own, or `default`].
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Print the namespace too, with pod security `restricted`.
    #[arg(long, requires = "namespace")]
    pub create_namespace: bool,
    /// Leave out what is drawn at random; it must be in the cluster already.
    #[arg(long)]
    pub without_secrets: bool,
    #[command(flatten)]
    pub pods: PodArgs,
}

#[derive(Clone, Debug, Subcommand)]
pub enum OperatorCommand {
    /// Keep the pods of every Topology true to it, until stopped.
    Run(Box<OperatorRunArgs>),
    /// Print the CustomResourceDefinition of Topology.
    Crd,
}

#[derive(Clone, Debug, Args)]
pub struct OperatorRunArgs {
    /// Only topologies of this namespace; may be repeated [default: all namespaces].
    #[arg(long, env = "QKDNET_NAMESPACES", value_name = "NAME", value_delimiter = ',')]
    pub namespace: Vec<String>,
    /// Where `/healthz` and `/metrics` are.
    #[arg(long, env = "QKDNET_LISTEN", value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    pub listen: std::net::SocketAddr,
    /// Namespace of the operator's own pod, which services must let in [default: that of its service account].
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME")]
    pub operator_namespace: Option<String>,
    #[command(flatten)]
    pub pods: PodArgs,
}

#[derive(Clone, Debug, Args)]
pub struct HostArgs {
    /// Configuration of a service with its kind; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// Folder of such configurations, NAME.yaml.
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
}
