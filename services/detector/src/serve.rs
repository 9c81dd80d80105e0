//! A detector node as a process or container of its own.

use anyhow::Result;
use shell::Shutdown;
use shell::fault::{Kind, Place};
use shell::launch::ServiceFile;
use topology::plan::DetectorConfig;

use crate::clicks::{Clicks, Origin};

/// What this node is to its desk of faults.
pub fn place(config: &DetectorConfig) -> Place {
    let module = &config.module;
    Place::new(&module.name, &module.site, &module.link, Kind::Detector, module.epoch_ps)
        .with_clock(!module.protocol.is_counted())
}

/// Serves until the run ends or the process is asked to stop.
pub async fn serve(file: ServiceFile<DetectorConfig>, shutdown: &Shutdown) -> Result<()> {
    let config = file.service.clone();
    let clicks = |source, faults| -> Result<Box<dyn module::Light>> {
        Ok(Box::new(Clicks::new(&config, Origin::Source(source), None, faults)?))
    };
    module::serve(file, &config.module, place(&config), clicks, shutdown).await
}
