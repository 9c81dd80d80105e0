//! What whoever runs the operator decides, the same for every topology.

/// Settings of the operator, and of what `render` prints.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Image of every container.
    pub image: String,
    pub image_pull_policy: String,
    /// Names of Secrets with credentials for the image's registry.
    pub image_pull_secrets: Vec<String>,
    /// Storage class of volumes; without one it is the cluster's default.
    pub storage_class: Option<String>,
    /// Size of the volume of a link end: its blocks and its authentication reserve.
    pub link_end_volume: String,
    /// Size of the volume of a site: its key store.
    pub site_volume: String,
    /// OpenTelemetry collector that the services send to, as `http://HOST:PORT`.
    pub otlp_endpoint: Option<String>,
    /// What services log.
    pub log: Option<String>,
    /// Domain of the cluster's names.
    pub cluster_domain: String,
    /// Namespace of the operator itself, from where it asks services for their status; `None` where there is none.
    pub operator_namespace: Option<String>,
    /// Whether running services are told of what changes, where that takes no start.
    pub tells: bool,
    /// How objects are marked as being managed.
    pub manager: &'static str,
}

/// What the operator marks its objects with.
pub const OPERATOR: &str = "qkdnet-operator";
/// What `qkdnet render` marks its objects with.
pub const RENDER: &str = "qkdnet-render";

impl Default for Settings {
    fn default() -> Self {
        Self {
            image: format!("qkdnet:{}", env!("CARGO_PKG_VERSION")),
            image_pull_policy: "IfNotPresent".to_owned(),
            image_pull_secrets: Vec::new(),
            storage_class: None,
            link_end_volume: "256Mi".to_owned(),
            site_volume: "1Gi".to_owned(),
            otlp_endpoint: None,
            log: None,
            cluster_domain: "cluster.local".to_owned(),
            operator_namespace: None,
            tells: true,
            manager: OPERATOR,
        }
    }
}
