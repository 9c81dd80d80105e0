//! StatefulSets: one pod each, with the least rights that run it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec};
use k8s_openapi::api::core::v1::*;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use topology::document::DeletionPolicy;
use topology::plan::ServiceConfig;

use super::secrets::PodSecrets;
use super::{CONFIG_HASH, Context, labels, unit_selector};
use crate::layout::{self, Component, Container as Planned, Unit, Volume as PlannedVolume, config_file, paths};
use crate::material::{keys, secret_names};

/// The user of the image.
const USER: i64 = 65532;
/// A service ends in order within 10 s and ten to spare.
const GRACE_S: i64 = 20;
/// Files of Secrets: for the owner and for the pod's group.
const SECRET_MODE: i32 = 0o440;
/// Longest name of a port.
const PORT_NAME_CHARS: usize = 15;
const DATA: &str = "data";
const RUN: &str = "run";
const CLAIM: &str = "data";

/// What a StatefulSet calls the claim of its one pod.
pub(crate) fn claim_name(unit: &str) -> String {
    format!("{CLAIM}-{unit}-0")
}

impl Context<'_> {
    pub(super) fn stateful_set(
        &self,
        unit: &Unit,
        started_with: String,
        files: (&PodSecrets, &PodSecrets),
    ) -> StatefulSet {
        let keep = match self.layout.deletion_policy {
            DeletionPolicy::Retain => "Retain",
            DeletionPolicy::Delete => "Delete",
        };
        StatefulSet {
            metadata: self.metadata(unit.name.clone(), self.unit_labels(unit)),
            spec: Some(StatefulSetSpec {
                replicas: Some(1),
                service_name: Some(unit.name.clone()),
                // Peers wait for each other: nobody waits for anybody to be ready.
                pod_management_policy: Some("Parallel".to_owned()),
                revision_history_limit: Some(2),
                selector: LabelSelector { match_labels: Some(unit_selector(&unit.name)), ..LabelSelector::default() },
                template: PodTemplateSpec {
                    metadata: Some(ObjectMeta {
                        labels: Some(self.unit_labels(unit)),
                        annotations: Some([(CONFIG_HASH.to_owned(), started_with)].into()),
                        ..ObjectMeta::default()
                    }),
                    spec: Some(self.pod(unit, files)),
                },
                volume_claim_templates: unit.volume.map(|volume| vec![self.claim(unit, volume)]),
                persistent_volume_claim_retention_policy: unit.volume.map(|_| {
                    StatefulSetPersistentVolumeClaimRetentionPolicy {
                        when_deleted: Some(keep.to_owned()),
                        when_scaled: Some("Retain".to_owned()),
                    }
                }),
                ..StatefulSetSpec::default()
            }),
            ..StatefulSet::default()
        }
    }

    fn claim(&self, unit: &Unit, volume: PlannedVolume) -> PersistentVolumeClaim {
        let size = match volume {
            PlannedVolume::LinkEnd => &self.settings.link_end_volume,
            PlannedVolume::Site => &self.settings.site_volume,
        };
        PersistentVolumeClaim {
            // What is here can never be changed again, so only what never changes is here.
            metadata: ObjectMeta {
                name: Some(CLAIM.to_owned()),
                labels: Some(
                    [
                        (labels::TOPOLOGY.to_owned(), self.layout.topology.clone()),
                        (labels::UNIT.to_owned(), unit.name.clone()),
                    ]
                    .into(),
                ),
                ..ObjectMeta::default()
            },
            spec: Some(PersistentVolumeClaimSpec {
                access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
                storage_class_name: self.settings.storage_class.clone(),
                resources: Some(VolumeResourceRequirements {
                    requests: Some([("storage".to_owned(), Quantity(size.clone()))].into()),
                    ..VolumeResourceRequirements::default()
                }),
                ..PersistentVolumeClaimSpec::default()
            }),
            ..PersistentVolumeClaim::default()
        }
    }

    fn pod(&self, unit: &Unit, (config, pki): (&PodSecrets, &PodSecrets)) -> PodSpec {
        let mut volumes = vec![Volume {
            name: RUN.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: Some(Quantity("64Mi".to_owned())),
                ..EmptyDirVolumeSource::default()
            }),
            ..Volume::default()
        }];
        volumes.extend(unit.containers.iter().map(|container| self.files(container, config, pki)));
        let pull_secrets = self.settings.image_pull_secrets.iter();
        let pull_secrets: Vec<LocalObjectReference> =
            pull_secrets.map(|name| LocalObjectReference { name: name.clone() }).collect();
        PodSpec {
            affinity: apart(&self.layout.topology, unit),
            automount_service_account_token: Some(false),
            // No service learns from its environment what else is in the namespace.
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(GRACE_S),
            image_pull_secrets: Some(pull_secrets),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                run_as_group: Some(USER),
                fs_group: Some(USER),
                fs_group_change_policy: Some("OnRootMismatch".to_owned()),
                seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), ..Default::default() }),
                ..PodSecurityContext::default()
            }),
            containers: unit.containers.iter().map(|container| self.container(unit, container)).collect(),
            volumes: Some(volumes),
            ..PodSpec::default()
        }
    }

    fn container(&self, unit: &Unit, planned: &Planned) -> Container {
        let health = planned.services.iter().find_map(|placed| placed.health_port);
        let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
            name: name.to_owned(),
            mount_path: path.to_owned(),
            read_only: read_only.then_some(true),
            ..VolumeMount::default()
        };
        let mut mounts = vec![mount(&files_volume(planned), paths::CONFIG, true), mount(RUN, paths::RUN, false)];
        if unit.volume.is_some() {
            mounts.push(mount(DATA, paths::DATA, false));
        }
        Container {
            name: planned.name.clone(),
            image: Some(self.settings.image.clone()),
            image_pull_policy: Some(self.settings.image_pull_policy.clone()),
            args: Some(arguments(planned)),
            env: Some(self.environment()),
            ports: Some(container_ports(planned)),
            // Startup and liveness say that the service runs, never that its peers do: those wait for it.
            startup_probe: health.map(|port| probe(port, 1, 300)),
            liveness_probe: health.map(|port| probe(port, 10, 6)),
            readiness_probe: health.map(|port| probe(port, 5, 3)),
            resources: Some(resources(planned.resources)),
            security_context: Some(SecurityContext {
                allow_privilege_escalation: Some(false),
                privileged: Some(false),
                read_only_root_filesystem: Some(true),
                run_as_non_root: Some(true),
                capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
                ..SecurityContext::default()
            }),
            termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
            volume_mounts: Some(mounts),
            ..Container::default()
        }
    }

    fn environment(&self) -> Vec<EnvVar> {
        let from_pod = |name: &str, field: &str| EnvVar {
            name: name.to_owned(),
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector { field_path: field.to_owned(), ..Default::default() }),
                ..EnvVarSource::default()
            }),
            ..EnvVar::default()
        };
        let value = |name: &str, value: &str| EnvVar {
            name: name.to_owned(),
            value: Some(value.to_owned()),
            ..EnvVar::default()
        };
        let mut variables = vec![
            from_pod("POD_NAME", "metadata.name"),
            from_pod("POD_NAMESPACE", "metadata.namespace"),
            value("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=$(POD_NAME),k8s.namespace.name=$(POD_NAMESPACE)"),
        ];
        variables.extend(self.settings.otlp_endpoint.as_ref().map(|at| value("OTEL_EXPORTER_OTLP_ENDPOINT", at)));
        variables.extend(self.settings.log.as_ref().map(|log| value("QKDNET_LOG", log)));
        variables
    }

    /// The files of one container and of no other: configurations, certificates, placed secrets.
    fn files(&self, planned: &Planned, config: &PodSecrets, pki: &PodSecrets) -> Volume {
        let topology = &self.layout.topology;
        let mut sources: BTreeMap<String, Vec<KeyToPath>> = BTreeMap::new();
        let mut add = |secret: &str, key: &str, path: String| {
            let item = KeyToPath { key: key.to_owned(), path, ..KeyToPath::default() };
            sources.entry(secret.to_owned()).or_default().push(item);
        };
        let mut add_file = |files: &PodSecrets, key: String, folder: &str| {
            if let Some(secret) = files.homes.get(&key) {
                add(secret, &key, format!("{folder}/{key}"));
            }
        };
        add_file(pki, "ca.pem".to_owned(), "pki");
        for placed in &planned.services {
            let name = &placed.service.name;
            add_file(config, config_file(name), "services");
            add_file(pki, format!("{name}.pem"), "pki");
            add_file(pki, format!("{name}.key"), "pki");
        }
        let of_site =
            |placed: &layout::Placed| matches!(placed.service.config, ServiceConfig::Kms(_) | ServiceConfig::Relay(_));
        if planned.services.iter().any(of_site) {
            add(&secret_names::directory(topology), keys::DIRECTORY, format!("network/{}", keys::DIRECTORY));
        }
        let mut optional: Vec<(String, KeyToPath)> = Vec::new();
        let mut sites_with_blocks = BTreeSet::new();
        for placed in &planned.services {
            match &placed.service.config {
                ServiceConfig::Kms(store) => {
                    let secret = secret_names::store(topology, &store.site);
                    add(&secret, keys::STORE_KEY, format!("secrets/stores/{}.key", store.site));
                }
                ServiceConfig::Channel(end) => {
                    let secret = secret_names::link(topology, &end.link);
                    add(&secret, keys::LINK_SECRET, format!("secrets/links/{}.secret", end.link));
                    add(&secret, keys::GENERATION, format!("secrets/links/{}.generation", end.link));
                    let mark = KeyToPath {
                        key: keys::used(&end.site),
                        path: format!("secrets/links/{}.{}.used", end.link, end.site),
                        ..KeyToPath::default()
                    };
                    optional.push((secret, mark));
                }
                // Secrets that an earlier release rendered do not have it: then one is made on the volume.
                other => {
                    let end = other.module().filter(|end| end.kms.is_some());
                    let Some(end) = end.filter(|end| sites_with_blocks.insert(&end.site)) else { continue };
                    let key = KeyToPath {
                        key: keys::BLOCKS_KEY.to_owned(),
                        path: format!("secrets/blocks/{}.key", end.site),
                        ..KeyToPath::default()
                    };
                    optional.push((secret_names::store(topology, &end.site), key));
                }
            }
        }
        let projection = |(secret, items): (String, Vec<KeyToPath>), optional: Option<bool>| VolumeProjection {
            secret: Some(SecretProjection { name: secret, items: Some(items), optional }),
            ..VolumeProjection::default()
        };
        let mut all: Vec<VolumeProjection> = sources.into_iter().map(|source| projection(source, None)).collect();
        // A mark that is not there says that the secret is fresh.
        all.extend(optional.into_iter().map(|(secret, item)| projection((secret, vec![item]), Some(true))));
        Volume {
            name: files_volume(planned),
            projected: Some(ProjectedVolumeSource { sources: Some(all), default_mode: Some(SECRET_MODE) }),
            ..Volume::default()
        }
    }
}

fn files_volume(container: &Planned) -> String {
    format!("files-{}", container.name)
}

/// `qkdnet KIND --config FILE`, or all of a folder in one process.
fn arguments(planned: &Planned) -> Vec<String> {
    match planned.services.as_slice() {
        [only] if !planned.hosted => vec![
            only.service.config.kind().to_owned(),
            "--config".to_owned(),
            format!("{}/{}", paths::SERVICES, config_file(&only.service.name)),
        ],
        _ => vec!["host".to_owned(), "--folder".to_owned(), paths::SERVICES.to_owned()],
    }
}

fn container_ports(planned: &Planned) -> Vec<ContainerPort> {
    let named = |name: &str, port: u16| ContainerPort {
        name: Some(name.to_owned()),
        container_port: port.into(),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    // Names of ports are unique in a pod.
    let own = |what: &str| {
        let kept: String = planned.name.chars().take(PORT_NAME_CHARS - 1 - what.len()).collect();
        format!("{kept}-{what}")
    };
    let health = planned.services.iter().find_map(|placed| placed.health_port);
    let mut ports: Vec<ContainerPort> = health.map(|port| named(&own("health"), port)).into_iter().collect();
    if let ([only], false) = (planned.services.as_slice(), planned.hosted) {
        ports.push(named(&own("grpc"), only.port));
        if matches!(only.service.config, ServiceConfig::Kms(_)) {
            ports.push(named("etsi014", only.etsi014_port));
            ports.push(named("metrics", only.metrics_port));
        }
    }
    ports
}

fn probe(port: u16, period_s: i32, failures: i32) -> Probe {
    Probe {
        grpc: Some(GRPCAction { port: port.into(), ..GRPCAction::default() }),
        period_seconds: Some(period_s),
        failure_threshold: Some(failures),
        timeout_seconds: Some(5),
        ..Probe::default()
    }
}

/// What a container asks for that only waits.
const MILLICORES_MIN: u32 = 10;

/// Requests are the plan's estimate, in powers of two: a pod restarts when they change, which a little more
/// loss is not worth. Memory may grow to three times that. Of the CPU a quarter of the estimate is asked for: a
/// network that gets less than it could use is slower and makes the same key, one that finds no place makes none.
fn resources(wanted: topology::plan::estimate::Resources) -> ResourceRequirements {
    const MIB: u64 = 1 << 20;
    let mebibytes = wanted.memory_bytes.div_ceil(MIB).next_power_of_two();
    let millicores = (wanted.millicores.next_power_of_two() / 4).max(MILLICORES_MIN);
    let quantity = |text: String| Quantity(text);
    ResourceRequirements {
        requests: Some(
            [
                ("cpu".to_owned(), quantity(format!("{millicores}m"))),
                ("memory".to_owned(), quantity(format!("{mebibytes}Mi"))),
            ]
            .into(),
        ),
        limits: Some([("memory".to_owned(), quantity(format!("{}Mi", 3 * mebibytes + 128)))].into()),
        ..ResourceRequirements::default()
    }
}

/// The two ends of a link stand in different places, where there are two.
fn apart(topology: &str, unit: &Unit) -> Option<Affinity> {
    let link = unit.link.as_ref().filter(|_| unit.component == layout::Component::LinkEnd)?;
    let selector = [
        (labels::TOPOLOGY.to_owned(), topology.to_owned()),
        (labels::LINK.to_owned(), link.clone()),
        (labels::COMPONENT.to_owned(), Component::LinkEnd.name().to_owned()),
    ];
    Some(Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![WeightedPodAffinityTerm {
                weight: 100,
                pod_affinity_term: PodAffinityTerm {
                    topology_key: "kubernetes.io/hostname".to_owned(),
                    label_selector: Some(LabelSelector {
                        match_labels: Some(selector.into()),
                        ..LabelSelector::default()
                    }),
                    ..PodAffinityTerm::default()
                },
            }]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    })
}
