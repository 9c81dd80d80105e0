//! The source over gRPC.

use std::sync::Arc;

use anyhow::Result;
use proto::source::v1::source_server::{Source, SourceServer};
use proto::source::v1::{
    AnalyserUpdate, GetStatusRequest, GetStatusResponse, PhotonEpoch, SetLossRequest, SetLossResponse,
    analyser_update::Update,
};
use shell::fault::{FaultService, Kind, Place};
use shell::launch::ServiceFile;
use shell::{AllowList, PeerIdentity, Role, Shutdown, duplex, figures};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use topology::figure::{Figure, Figures};
use topology::plan::{CONTROL_IDENTITY, SourceConfig};

use crate::pacing::PacerConnector;
use crate::{EPOCHS_IN_FLIGHT, Losses, Output, PacerDial};

/// Hands each stream to the emission loop.
pub struct SourceService {
    link: String,
    /// Names of the modules, by output.
    modules: Vec<String>,
    outputs: mpsc::Sender<Output>,
    status: Arc<crate::Status>,
    losses: Losses,
    /// Whether the light needs a pump; pulses have none.
    is_pumped: bool,
}

impl SourceService {
    pub fn new(
        config: &SourceConfig,
        outputs: mpsc::Sender<Output>,
        status: Arc<crate::Status>,
        losses: Losses,
    ) -> Self {
        let modules = config.modules_by_output().cloned().collect();
        let is_pumped = config.nature.is_pumped();
        Self { link: config.link.clone(), modules, outputs, status, losses, is_pumped }
    }
}

#[tonic::async_trait]
impl Source for SourceService {
    type AttachStream = duplex::Answer<PhotonEpoch>;

    async fn attach(
        &self,
        request: Request<Streaming<AnalyserUpdate>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let caller = &PeerIdentity::of(&request)?.name;
        let own = self.modules.iter().position(|module| module == caller);
        let check = move |update: &AnalyserUpdate| match &update.update {
            Some(Update::Attach(hello)) if own != Some(hello.output as usize) => {
                Err(Status::permission_denied(format!("output {} is another module's", hello.output)))
            }
            _ => Ok(()),
        };
        let (duplex, answer) = duplex::accept_if(request.into_inner(), EPOCHS_IN_FLIGHT, check);
        self.outputs.send(duplex).await.map_err(|_| Status::unavailable("the source is stopping"))?;
        Ok(answer)
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        let now = self.status.now();
        Ok(Response::new(GetStatusResponse {
            link: self.link.clone(),
            epoch: now.epoch,
            photons_sent: now.photons_sent,
            outputs_attached: now.outputs_attached,
            lag_s: now.lag_s,
            network_ps: now.network_ps,
            waits_for_network: now.waits_for_network,
            pacer_away: now.pacer_away,
            loss_db: self.losses.now_db(),
            figures: figures::tell(&Figures::of([(Figure::Pump, self.is_pumped.then_some(now.pump))])),
        }))
    }

    async fn set_loss(&self, request: Request<SetLossRequest>) -> Result<Response<SetLossResponse>, Status> {
        let asked = request.into_inner().loss_db;
        let arms = self.losses.now_db().len();
        if asked.len() != arms {
            return Err(Status::invalid_argument(format!("{} losses for {arms} arms: give one for each", asked.len())));
        }
        if asked.iter().any(|loss_db| !loss_db.is_finite() || *loss_db < 0.0) {
            return Err(Status::invalid_argument(format!("{asked:?} dB: a loss is a number from 0 on")));
        }
        Ok(Response::new(SetLossResponse { changed: self.losses.set(asked) }))
    }
}

/// What this source is to its desk of faults.
pub fn place(config: &SourceConfig) -> Place {
    Place::new(&config.name, &config.site, &config.link, Kind::Source, config.epoch_ps)
}

/// Serves until the process is asked to stop; a run that is under way is ended in order.
pub async fn serve(file: ServiceFile<SourceConfig>, shutdown: &Shutdown) -> Result<()> {
    let config = file.service.clone();
    let faults = file.fault_desk(config.faults_allowed, place(&config), CONTROL_IDENTITY, shutdown).await?;
    let status = Arc::new(crate::Status::default());
    let (outputs_tx, outputs) = mpsc::channel(4);
    let pacer: Option<PacerDial> = match &config.pacing {
        Some(pacing) => {
            Some(Arc::new(PacerConnector(file.connector(&config.name, &pacing.service, &shutdown.token())?)))
        }
        None => None,
    };
    let losses = Losses::of(&config);
    let service = SourceService::new(&config, outputs_tx, status.clone(), losses.clone());
    let service = shell::limited!(SourceServer::new(service));
    // Outputs can still come and be told of the end after this was asked to stop.
    let closing = CancellationToken::new();
    let orders = FaultService::of(faults.as_ref(), &closing);
    let allow = AllowList::new(&config.accepts)?
        .with(Role::Control, [CONTROL_IDENTITY])?
        .with(Role::Module, config.modules_by_output())?;
    let server = file.server(&config.name, &allow)?.add_service(service).add_optional_service(orders);
    let running = server.start(closing.clone()).await?;
    if file.restarted {
        // To those at the outputs this is an interruption: the light comes back with the next start.
        tokio::select! {
            ended = crate::run(config, losses, outputs, pacer, (status, faults), CancellationToken::new()) => ended?,
            () = shutdown.requested() => {}
        }
    } else {
        crate::run(config, losses, outputs, pacer, (status, faults), shutdown.token()).await?;
    }
    closing.cancel();
    running.stopped().await?;
    Ok(())
}
