//! `qkdnet operator`: networks on Kubernetes.

use std::time::Duration;

use anyhow::Context;
use operator::settings::OPERATOR;
use operator::{Options, Settings};
use runner::{Failure, runtime};
use shell::Shutdown;

use super::print;
use crate::cli::{OperatorCommand, OperatorRunArgs, PodArgs};

/// Rounds under way get this long to end. An API server that does not answer must not keep the process.
const DRAIN: Duration = Duration::from_secs(5);

pub fn run(command: OperatorCommand, log: Option<&str>) -> Result<(), Failure> {
    match command {
        OperatorCommand::Run(args) => serve(*args, log),
        OperatorCommand::Crd => {
            print(&operator::crd::yaml().map_err(|error| Failure::failed(format!("write the definition: {error}")))?)
        }
    }
}

/// Settings of pods as they were typed.
pub fn settings(pods: &PodArgs) -> Settings {
    Settings {
        image: pods.image.clone(),
        image_pull_policy: pods.image_pull_policy.clone(),
        image_pull_secrets: pods.image_pull_secret.iter().filter(|name| !name.is_empty()).cloned().collect(),
        storage_class: pods.storage_class.clone().filter(|name| !name.is_empty()),
        link_end_volume: pods.link_end_volume.clone(),
        site_volume: pods.site_volume.clone(),
        otlp_endpoint: pods.otlp_endpoint.clone().filter(|url| !url.is_empty()),
        log: pods.service_log.clone().filter(|filter| !filter.is_empty()),
        cluster_domain: pods.cluster_domain.clone(),
        operator_namespace: None,
        tells: true,
        manager: OPERATOR,
    }
}

fn serve(args: OperatorRunArgs, log: Option<&str>) -> Result<(), Failure> {
    let operator_namespace = args.operator_namespace.or_else(operator::run::own_namespace);
    let settings = Settings { operator_namespace, ..settings(&args.pods) };
    let namespaces = args.namespace.into_iter().filter(|name| !name.is_empty()).collect();
    let options = Options { settings, namespaces, listen: args.listen };
    let mut telemetry = runtime::telemetry("operator", "", None, log.or(Some("info")));
    telemetry.topology = None;
    runtime::block_on(&telemetry, async {
        let shutdown = Shutdown::on_signals(DRAIN).context("listen for signals")?;
        tokio::spawn(runtime::stay_small());
        match shutdown.run(operator::run(options, &shutdown)).await {
            Ok(ended) => ended,
            Err(late) => {
                tracing::warn!("{late}");
                Ok(())
            }
        }
    })?;
    Ok(())
}
