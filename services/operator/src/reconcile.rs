//! One round for one topology: validate, plan, build, apply, tell.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Resource, ResourceExt};
use serde_json::json;
use topology::Topology;
use topology::document::DeletionPolicy;
use topology::plan::{Plan, Speed};

use crate::anchors::{self, Keepers};
use crate::apply::{ApplyError, Changes, Cluster, Live};
use crate::build::{self, BuildError};
use crate::events::Events;
use crate::figures::{self, LinkFigures};
use crate::layout::Layout;
use crate::material::{Existing, Material, MaterialError};
use crate::metrics::Metrics;
use crate::monitor::{Monitor, Monitors};
use crate::observe::Observed;
use crate::placement;
use crate::pods::PodReport;
use crate::resource::{TopologyObject, TopologyStatus};
use crate::restore::{self, Restore, Step};
use crate::settings::{OPERATOR, Settings};
use crate::status::{self, Known};
use crate::tell::{self, Due, TellError, Told};
use crate::validate::{self, Accepted};

/// A look although nothing was heard: certificates grow old, and a watch can miss something.
const LOOK_IDLE: Duration = Duration::from_secs(600);
const LOOK_UNSETTLED: Duration = Duration::from_secs(15);
/// Nothing is heard of volumes that go.
const LOOK_RESTORING: Duration = Duration::from_secs(1);
/// Figures that only moved are written this seldom.
const FIGURES_EVERY: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error("the object has no namespace")]
    NoNamespace,
    #[error(transparent)]
    Material(#[from] MaterialError),
    #[error("build: {0}")]
    Build(#[from] BuildError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Tell(#[from] TellError),
    #[error("control certificate: {0}")]
    Control(#[from] shell::TlsError),
    #[error("write the status: {0}")]
    Status(Box<kube::Error>),
}

impl ReconcileError {
    /// The step that failed, for metrics and events.
    pub fn step(&self) -> &'static str {
        match self {
            Self::NoNamespace => "validate",
            Self::Material(_) => "material",
            Self::Build(_) => "build",
            Self::Apply(_) => "apply",
            Self::Tell(_) | Self::Control(_) => "tell",
            Self::Status(_) => "status",
        }
    }
}

/// What every reconcile shares.
pub struct Context {
    pub client: Client,
    pub settings: Settings,
    pub events: Events,
    pub metrics: Arc<Metrics>,
    pub monitors: Monitors,
    pub keepers: Keepers,
    /// What was made for each topology, so that a Secret that somebody deletes comes back as it was.
    pub memory: Mutex<HashMap<ObjectRef<TopologyObject>, Memory>>,
}

/// What the operator remembers of a topology between two rounds.
#[derive(Clone, Default)]
pub struct Memory {
    material: Option<Arc<Material>>,
    figures_written: Option<Instant>,
    told: Told,
    /// When the reserve of each end was replaced, by link and site, as far as events have said so.
    replaced: BTreeMap<(String, String), u64>,
    failures: u32,
}

impl Context {
    fn memory(&self, key: &ObjectRef<TopologyObject>) -> Memory {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned().unwrap_or_default()
    }

    fn remember(&self, key: &ObjectRef<TopologyObject>, change: impl FnOnce(&mut Memory)) {
        change(self.memory.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default());
    }

    fn forget(&self, key: &ObjectRef<TopologyObject>) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        self.monitors.stop(key);
        self.keepers.stop(key);
    }

    /// Forgets every topology that is not among these.
    pub fn keep_only(&self, alive: &dyn Fn(&ObjectRef<TopologyObject>) -> bool) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| alive(key));
        self.monitors.keep_only(alive);
        self.keepers.keep_only(alive);
    }
}

/// Brings one topology to where its object says.
pub async fn reconcile(object: Arc<TopologyObject>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    context.metrics.reconciled();
    let key = ObjectRef::from_obj(&*object);
    if object.metadata.deletion_timestamp.is_some() {
        // Everything is owned by the object and goes with it; what outlives it is owned by nobody.
        context.forget(&key);
        forget_ceilings(&object, &context).await;
        return Ok(Action::await_change());
    }
    let round = Round { object: &object, context: &context, key: &key };
    let result = round.run().await;
    if result.is_ok() {
        context.remember(&key, |memory| memory.failures = 0);
    }
    result
}

/// Ceilings of volumes that go with their topology are of no use. Those that stay are harmless.
async fn forget_ceilings(object: &TopologyObject, context: &Context) {
    let deletes = validate::validate(object)
        .is_ok_and(|accepted| accepted.topology.spec.deletion_policy == DeletionPolicy::Delete);
    let (Some(namespace), true) = (object.namespace(), deletes) else { return };
    let removed = anchors::remove(&context.client, &context.settings, &namespace, &object.name_any()).await;
    if let Err(error) = removed {
        tracing::warn!(topology = object.name_any(), %error, "its ceilings are left");
    }
}

/// How long to wait after a failure: longer each time, and not for ever.
pub fn after_failure(object: Arc<TopologyObject>, error: &ReconcileError, context: Arc<Context>) -> Action {
    context.metrics.failed(error.step());
    tracing::warn!(topology = object.name_any(), step = error.step(), "{error}");
    let key = ObjectRef::from_obj(&*object);
    let mut failures = 0;
    context.remember(&key, |memory| {
        memory.failures = memory.failures.saturating_add(1);
        failures = memory.failures;
    });
    Action::requeue(Duration::from_millis(500 << failures.min(6)))
}

/// How far a restore is.
struct Restoring {
    restore: Restore,
    step: Option<Step>,
    /// What is said while stores are not there.
    message: Option<String>,
}

impl Restoring {
    async fn of(
        object: &TopologyObject,
        cluster: &Cluster<'_>,
        layout: &Layout,
        live: &Live,
    ) -> Result<Self, ReconcileError> {
        let restore = Restore::of(object, &live.secrets);
        let step = Step::next(&restore, cluster, layout, live).await?;
        let message = step.as_ref().and_then(|step| step.message(restore.wanted.as_deref().unwrap_or_default()));
        Ok(Self { restore, step, message })
    }

    /// What was carried out when this round is over.
    fn next(&self) -> Restore {
        let mut restore = self.restore.clone();
        if self.step == Some(Step::Start) {
            restore.carried_out();
        }
        restore
    }
}

struct Round<'a> {
    object: &'a TopologyObject,
    context: &'a Context,
    key: &'a ObjectRef<TopologyObject>,
}

impl Round<'_> {
    async fn run(&self) -> Result<Action, ReconcileError> {
        let accepted = match validate::validate(self.object) {
            Ok(accepted) => accepted,
            Err(refused) => return self.refuse("Invalid", &refused.to_string()).await,
        };
        if let Some(why) = topology::plan::twin_field::cannot_run(&accepted.topology) {
            return self.refuse("PlanOnly", &why).await;
        }
        let plan = crate::layout::plan(&accepted.topology);
        let namespace = self.object.namespace().ok_or(ReconcileError::NoNamespace)?;
        let layout = Layout::of(&accepted.topology, &plan, &namespace);
        let cluster = Cluster {
            client: &self.context.client,
            namespace: &namespace,
            topology: &layout.topology,
            retain: layout.deletion_policy == DeletionPolicy::Retain,
        };
        let live = cluster.list().await?;
        if let Err(why) = crate::fixed::check(&accepted.topology, &live.secrets) {
            return self.refuse("Immutable", &why).await;
        }
        let mut restoring = Restoring::of(self.object, &cluster, &layout, &live).await?;
        let mut material = self.material(&layout, &live)?;
        match &restoring.step {
            Some(Step::Start) => restore::renew(&mut material, &layout)?,
            // Nobody takes a secret whose reserve goes.
            Some(Step::Stop { .. } | Step::GiveUp { .. }) => {}
            None => self.place(&mut material, &layout, &live).await?,
        }
        let material = Arc::new(material);
        self.context.remember(self.key, |memory| memory.material = Some(material.clone()));
        let provided = self.provide(&accepted.topology, &layout, &material, (&cluster, &live), &mut restoring).await;
        let (all_told, failure) = match provided {
            Ok(all_told) => (all_told, None),
            Err(error) => (false, Some(error)),
        };
        let (settings, client) = (&self.context.settings, &self.context.client);
        self.context.keepers.follow(self.key, &layout, &material, settings, client);
        let monitor = self.context.monitors.follow(self.key, &layout, &plan, &material, settings);
        let settled = self.say(&accepted, &plan, (&layout, &live), &monitor, &restoring, failure.as_ref()).await?;
        match failure {
            Some(error) => Err(error),
            None if restoring.message.is_some() => Ok(Action::requeue(LOOK_RESTORING)),
            None => Ok(Action::requeue(if settled && all_told { LOOK_IDLE } else { LOOK_UNSETTLED })),
        }
    }

    /// Brings authentication secrets to the ends that need them.
    async fn place(&self, material: &mut Material, layout: &Layout, live: &Live) -> Result<(), ReconcileError> {
        // What is to be given was in the cluster before: whatever happens now, it is known again afterwards.
        placement::refill(material, layout, &self.context.settings).await;
        let ends = placement::ends(layout, &live.pods, &live.claims);
        for link in placement::advance(&mut material.links, &layout.links, &ends)? {
            self.context.events.renewed(&self.object.object_ref(&()), &link).await;
        }
        Ok(())
    }

    /// Makes the cluster have what is planned, and tells services that run; true if nobody is left to be told.
    async fn provide(
        &self,
        topology: &Topology,
        layout: &Layout,
        material: &Material,
        (cluster, live): (&Cluster<'_>, &Live),
        restoring: &mut Restoring,
    ) -> Result<bool, ReconcileError> {
        let mut objects = build::build(layout, material, &self.context.settings, self.owner())?;
        crate::fixed::record(topology, &mut objects.secrets);
        if restoring.step.as_ref().is_some_and(Step::stops) {
            restore::stop(&mut objects.stateful_sets);
        }
        let carried_out = restoring.next();
        carried_out.record(&layout.topology, &mut objects.secrets);
        let (applied, mut changes) = cluster.apply(objects, live).await?;
        if let Some(Step::GiveUp { claims }) = &restoring.step {
            cluster.give_up(claims, &mut changes).await?;
        }
        self.say_changes(changes).await;
        if restoring.step == Some(Step::Start) {
            // What services said before they stopped is no news of those that start.
            self.context.monitors.stop(self.key);
            self.context.keepers.stop(self.key);
            let request = carried_out.done.as_deref().unwrap_or_default();
            self.context.events.restored(&self.object.object_ref(&()), request).await;
        }
        restoring.restore = carried_out;
        let mut told = self.context.memory(self.key).told;
        let places = layout.places();
        told.retain(|service, _| places.contains_key(service.as_str()));
        let due = tell::due(layout, &applied.stateful_sets, &live.pods, &self.context.settings, &told);
        self.tell_services(due, told, material).await
    }

    fn material(&self, layout: &Layout, live: &Live) -> Result<Material, MaterialError> {
        let names: Vec<(String, usize)> =
            live.secrets.iter().enumerate().map(|(index, secret)| (secret.name_any(), index)).collect();
        let existing: Existing<'_> =
            names.iter().map(|(name, index)| (name.as_str(), &live.secrets[*index])).collect::<BTreeMap<_, _>>();
        let before = self.context.memory(self.key).material;
        Material::complete(layout, &self.context.settings, &existing, before.as_deref())
    }

    fn owner(&self) -> Option<OwnerReference> {
        self.object.controller_owner_ref(&())
    }

    async fn refuse(&self, reason: &str, message: &str) -> Result<Action, ReconcileError> {
        let generation = self.object.metadata.generation.unwrap_or_default();
        let old = self.object.status.as_ref();
        let status = status::refused(reason, message, generation, old, Timestamp::now());
        self.write(old, status).await?;
        Ok(Action::await_change())
    }

    /// Writes the status if there is something to say; true when all is well.
    async fn say(
        &self,
        accepted: &Accepted,
        plan: &Plan,
        (layout, live): (&Layout, &Live),
        monitor: &Monitor,
        restoring: &Restoring,
        failure: Option<&ReconcileError>,
    ) -> Result<bool, ReconcileError> {
        let observed = monitor.latest();
        if let Some(observed) = &observed {
            self.say_replaced(observed).await;
        }
        let links: Option<Vec<LinkFigures>> = observed.as_ref().map(|seen| figures::links(&plan.links, seen));
        let rolled_back = observed.as_ref().map(|seen| seen.rolled_back()).unwrap_or_default();
        let other_versions = observed.as_ref().map(|seen| seen.other_versions()).unwrap_or_default();
        let pacer_is_silent = observed.as_ref().is_some_and(|seen| seen.pacer_is_silent);
        let silent_stores = observed.map(|seen| seen.silent_stores()).unwrap_or_default();
        let waiting = self.context.keepers.waiting(self.key);
        let pods = PodReport::of(layout, &live.pods, Timestamp::now());
        let warnings: Vec<String> = plan.warnings.iter().chain(&accepted.warnings).cloned().collect();
        let known = Known {
            sites: accepted.topology.spec.sites.len(),
            services: plan.services.len(),
            topology: &layout.topology,
            namespace: &layout.namespace,
            restoring: restoring.message.clone(),
            restored: restoring.restore.done.as_deref().unwrap_or_default(),
            apply_failure: failure.map(ToString::to_string),
            pods: &pods,
            waiting: &waiting,
            links_planned: plan.links.len(),
            links: links.as_deref(),
            pace: match plan.speed {
                Speed::RealTime(pace) => Some(pace),
                Speed::Max => None,
            },
            silent_stores: &silent_stores,
            pacer_is_silent,
            other_versions: &other_versions,
            rolled_back: &rolled_back,
            warnings: &warnings,
        };
        let generation = self.object.metadata.generation.unwrap_or_default();
        let old = self.object.status.as_ref();
        let status = status::accepted(&known, generation, old, Timestamp::now());
        self.write(old, status).await?;
        let flowing = links.is_some_and(|links| links.iter().all(|link| link.flowing));
        Ok(flowing && pods.troubles.is_empty() && silent_stores.is_empty() && !pacer_is_silent)
    }

    async fn write(&self, old: Option<&TopologyStatus>, status: TopologyStatus) -> Result<(), ReconcileError> {
        if let Some(old) = old {
            let written = self.context.memory(self.key).figures_written;
            let fresh = written.is_some_and(|at| at.elapsed() < FIGURES_EVERY);
            if *old == status || (fresh && !status::differs_in_kind(old, &status)) {
                return Ok(());
            }
        }
        let namespace = self.object.namespace().ok_or(ReconcileError::NoNamespace)?;
        let api: Api<TopologyObject> = Api::namespaced(self.context.client.clone(), &namespace);
        let patch = json!({
            "apiVersion": TopologyObject::api_version(&()),
            "kind": TopologyObject::kind(&()),
            "status": status,
        });
        let parameters = PatchParams::apply(OPERATOR).force();
        let patched = api.patch_status(&self.object.name_any(), &parameters, &Patch::Apply(&patch)).await;
        match patched {
            Ok(_) => {}
            // Deleted in the meantime: there is nobody to tell.
            Err(kube::Error::Api(answer)) if answer.code == 404 => return Ok(()),
            Err(error) => return Err(ReconcileError::Status(Box::new(error))),
        }
        self.context.metrics.wrote(1);
        self.context.remember(self.key, |memory| memory.figures_written = Some(Instant::now()));
        let reference = self.object.object_ref(&());
        for transition in status::transitions(old, &status) {
            self.context.events.transition(&reference, &transition).await;
        }
        Ok(())
    }

    /// True if all have heard.
    async fn tell_services(&self, due: Vec<Due>, mut told: Told, material: &Material) -> Result<bool, ReconcileError> {
        if due.is_empty() {
            return Ok(true);
        }
        let credentials = material.control_credentials()?;
        let tell::Outcome { heard, changed, silent, failure } = tell::tell(due, &credentials).await;
        told.extend(heard);
        self.context.remember(self.key, |memory| memory.told = told);
        if !changed.is_empty() {
            self.context.events.told(&self.object.object_ref(&()), &changed).await;
        }
        failure.map_or(Ok(!silent), |failure| Err(failure.into()))
    }

    /// An event for each reserve that was replaced since the last look.
    async fn say_replaced(&self, observed: &Observed) {
        let said = self.context.memory(self.key).replaced;
        for (end, replaced) in observed.reserves_replaced(&said) {
            let at = i64::try_from(replaced.unix_ms).ok().and_then(|at| Timestamp::from_millisecond(at).ok());
            let (reference, at) = (self.object.object_ref(&()), at.unwrap_or_default());
            self.context.events.reserve_replaced(&reference, end, &replaced.by, at).await;
            self.context.remember(self.key, |memory| {
                memory.replaced.insert(end.clone(), replaced.unix_ms);
            });
        }
    }

    async fn say_changes(&self, changes: Changes) {
        if changes.any() {
            self.context.metrics.wrote(changes.created + changes.updated + changes.deleted);
            self.context.events.applied(&self.object.object_ref(&()), changes).await;
        }
    }
}
