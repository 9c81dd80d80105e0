//! A transmitter as a process or container of its own.

use anyhow::Result;
use shell::Shutdown;
use shell::fault::{Kind, Place};
use shell::launch::ServiceFile;
use topology::plan::TransmitterConfig;

use crate::pulses::{Origin, Pulses};

/// What this transmitter is to its desk of faults.
pub fn place(config: &TransmitterConfig) -> Place {
    let module = &config.module;
    Place::new(&module.name, &module.site, &module.link, Kind::Transmitter, module.epoch_ps)
}

/// Serves until the run ends or the process is asked to stop.
pub async fn serve(file: ServiceFile<TransmitterConfig>, shutdown: &Shutdown) -> Result<()> {
    let config = file.service.clone();
    let pulses = |source, _| -> Result<Box<dyn module::Light>> {
        Ok(Box::new(Pulses::new(&config, Origin::Source(source), None)?))
    };
    module::serve(file, &config.module, place(&config), pulses, shutdown).await
}
