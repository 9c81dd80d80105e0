//! What a running service can be told: by whoever controls the network, and by nobody else.

use std::collections::HashMap;

use proto::kms::v1::kms_client::KmsClient;
use proto::kms::v1::{GetStatusRequest as GetKmsStatusRequest, RelayedSite, SetNetworkRequest};
use proto::relay::v1::SetTargetsRequest;
use proto::relay::v1::relay_client::RelayClient;
use proto::source::v1::source_client::SourceClient;
use proto::source::v1::{GetStatusRequest, GetStatusResponse, SetLossRequest};
use shell::pki::Authority;
use shell::{Connector, Credentials, Endpoint};
use tonic::Code;
use tonic::transport::Channel;

use crate::keys::{Network, eventually, keys};
use crate::support::{Place, bright_network, qkdnet, success};

const SOURCE: &str = "source-valrose-sophia";
const STORES: [&str; 3] = ["kms-calern", "kms-sophia", "kms-valrose"];

/// Who may speak as whoever it likes.
struct Caller {
    runtime: tokio::runtime::Runtime,
    authority: Authority,
    run: std::path::PathBuf,
}

impl Caller {
    fn of(place: &Place) -> Self {
        let data = place.path("data/.qkdnet");
        let authority = Authority::load(&data.join("pki")).expect("the authority");
        Self { runtime: tokio::runtime::Runtime::new().expect("a runtime"), authority, run: data.join("run") }
    }

    fn channel(&self, name: &str, service: &str) -> Channel {
        let issued = self.authority.issue(name).expect("a certificate");
        let authority = self.authority.certificate_pem();
        let credentials = Credentials::from_pem(authority, &issued.certificate_pem, &issued.key_pem).expect("usable");
        let endpoint = Endpoint::in_run_dir(&self.run, service);
        self.runtime.block_on(Connector::new(&endpoint, service, &credentials).connect()).expect("connect")
    }

    fn set_loss(&self, name: &str, loss_db: &[f64]) -> Result<bool, Code> {
        let mut client = SourceClient::new(self.channel(name, SOURCE));
        let request = SetLossRequest { loss_db: loss_db.to_vec() };
        let answer = self.runtime.block_on(client.set_loss(request)).map_err(|status| status.code())?;
        Ok(answer.into_inner().changed)
    }

    fn source(&self) -> GetStatusResponse {
        let mut client = SourceClient::new(self.channel("control", SOURCE));
        self.runtime.block_on(client.get_status(GetStatusRequest {})).expect("a status").into_inner()
    }

    /// Photons of either output together that leave in an epoch.
    fn brightness(&self) -> f64 {
        let before = self.source();
        let later = || Some(self.source()).filter(|now| now.epoch >= before.epoch + 20);
        let after = eventually("light goes on", later).expect("epochs");
        (after.photons_sent - before.photons_sent) as f64 / (after.epoch - before.epoch) as f64
    }

    fn set_network(&self, name: &str, store: &str, request: &SetNetworkRequest) -> Result<bool, Code> {
        let mut client = KmsClient::new(self.channel(name, store));
        let answer = self.runtime.block_on(client.set_network(request.clone()));
        Ok(answer.map_err(|status| status.code())?.into_inner().changed)
    }

    fn set_targets(&self, name: &str, relay: &str, sites: &[&str]) -> Result<bool, Code> {
        let mut client = RelayClient::new(self.channel(name, relay));
        let request = SetTargetsRequest { sites: sites.iter().map(ToString::to_string).collect() };
        let answer = self.runtime.block_on(client.set_targets(request)).map_err(|status| status.code())?;
        Ok(answer.into_inner().changed)
    }

    /// Sites with which a key store shares key, and whether their key stores answer.
    fn pools(&self, store: &str) -> HashMap<String, bool> {
        let mut client = KmsClient::new(self.channel("control", store));
        let status = self.runtime.block_on(client.get_status(GetKmsStatusRequest {})).expect("a status").into_inner();
        status.pools.into_iter().map(|pool| (pool.site, pool.connected)).collect()
    }
}

/// The applications of all of Nice, and those of one site.
fn applications(site: &str) -> SetNetworkRequest {
    let all = [("university", "valrose"), ("inria", "sophia"), ("observatory", "calern")];
    SetNetworkRequest {
        saes: all.iter().filter(|(_, at)| *at == site).map(|(sae, _)| (*sae).to_owned()).collect(),
        directory: all.map(|(sae, site)| (sae.to_owned(), site.to_owned())).into(),
        relayed_sites: Vec::new(),
    }
}

fn relayed(site: &str) -> Vec<RelayedSite> {
    vec![RelayedSite { site: site.to_owned(), address: String::new() }]
}

/// A network over which key flows, in processes and at the pace of the real one.
fn started(place: &Place) -> Network<'_> {
    let network = Network::start_with(place, "process", |command| {
        command.args(["--speed", "1"]);
    });
    eventually("key flows", || network.status().filter(|status| status["ready"] == true)).expect("a network");
    network
}

#[test]
fn a_source_takes_another_loss_while_light_flows() {
    let place = Place::new(&bright_network());
    let network = started(&place);
    let caller = Caller::of(&place);
    let loss_db = caller.source().loss_db;
    assert_eq!(loss_db.len(), 2);
    for wrong in [vec![], vec![1.0], vec![1.0; 3], vec![f64::NAN, 1.0], vec![1.0, f64::INFINITY], vec![-1.0, 1.0]] {
        assert_eq!(caller.set_loss("control", &wrong), Err(Code::InvalidArgument), "{wrong:?}");
    }
    // Its detectors may attach to it, and no more.
    let detector = "detector-valrose-sophia-valrose";
    assert_eq!(caller.set_loss(detector, &[9.0, 9.0]), Err(Code::PermissionDenied));
    assert_eq!(caller.source().loss_db, loss_db);

    let before = caller.brightness();
    let more = [loss_db[0] + 10.0, loss_db[1] + 10.0];
    assert_eq!(caller.set_loss("control", &more), Ok(true));
    assert_eq!(caller.set_loss("control", &more), Ok(false));
    assert_eq!(caller.source().loss_db, more);
    // A tenth, were it not for the loop that gives the pump more power then.
    let after = caller.brightness();
    assert!(after < 0.3 * before, "{after} photons an epoch, and {before} before");
    network.stop();
}

#[test]
fn key_stores_take_other_applications_while_they_serve() {
    let place = Place::new(&bright_network());
    let network = started(&place);
    let caller = Caller::of(&place);
    let mut request = applications("valrose");
    assert_eq!(caller.set_network("control", "kms-valrose", &request), Ok(false), "those that there are");
    request.directory.insert("guest".to_owned(), "valrose".to_owned());
    assert_eq!(caller.set_network("relay-valrose", "kms-valrose", &request), Err(Code::PermissionDenied));
    for store in STORES {
        request.saes = match store {
            "kms-valrose" => vec!["university".to_owned(), "guest".to_owned()],
            "kms-sophia" => vec!["inria".to_owned()],
            _ => vec!["observatory".to_owned()],
        };
        request.relayed_sites = match store {
            "kms-valrose" => Vec::new(),
            "kms-sophia" => relayed("calern"),
            _ => relayed("sophia"),
        };
        assert_eq!(caller.set_network("control", store, &request), Ok(true), "{store}");
    }
    let issued = caller.authority.issue_application("guest").expect("a certificate");
    std::fs::write(place.path("guest.pem"), &issued.certificate_pem).expect("write a certificate");
    std::fs::write(place.path("guest.key"), issued.key_pem.as_bytes()).expect("write a key");
    let guest = |words: &[&str]| {
        let status = network.status().expect("a status");
        let sites = status["sites"].as_array().expect("sites").clone();
        let valrose = sites.iter().find(|site| site["site"] == "valrose").expect("Valrose");
        let mut command = qkdnet();
        command.arg("key").args(words).args(["--url", valrose["url"].as_str().expect("a URL"), "--output", "json"]);
        command.args(["--ca", valrose["ca"].as_str().expect("a file")]);
        command.arg("--cert").arg(place.path("guest.pem")).arg("--key").arg(place.path("guest.key"));
        command
    };
    let got = keys(&success(guest(&["get", "--to", "inria"])).stdout);
    let fetched = network.fetch("inria", "guest", &[&got[0].0]);
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    assert!(keys(&fetched.stdout) == got, "two keys of one name");

    // Nobody is at a site that does not exist, and nothing of such a request counts.
    let mut wrong = request.clone();
    wrong.relayed_sites.clear();
    wrong.directory.insert("sailor".to_owned(), "atlantis".to_owned());
    assert_eq!(caller.set_network("control", "kms-valrose", &wrong), Err(Code::FailedPrecondition));
    // The same where one part is good and another has a bad name.
    let bad_application = SetNetworkRequest { saes: vec!["..".to_owned()], ..SetNetworkRequest::default() };
    let bad_site = SetNetworkRequest { relayed_sites: relayed("../sophia"), ..SetNetworkRequest::default() };
    for request in [bad_application, bad_site] {
        assert_eq!(caller.set_network("control", "kms-calern", &request), Err(Code::InvalidArgument), "{request:?}");
        assert!(caller.pools("kms-calern").contains_key("sophia"), "a pool has gone");
    }
    // One that goes is not served any more, whatever its certificate says.
    request.relayed_sites.clear();
    request.saes = vec!["university".to_owned()];
    request.directory.remove("guest");
    assert_eq!(caller.set_network("control", "kms-valrose", &request), Ok(true));
    let refused = guest(&["get", "--to", "inria"]).output().expect("run qkdnet");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("401"), "{said}");
    network.stop();
}

#[test]
fn a_site_behind_a_relay_goes_and_comes_back_while_the_others_serve() {
    let place = Place::new(&bright_network());
    let network = started(&place);
    let caller = Caller::of(&place);
    let got = eventually("a relayed key", || {
        let output = network.key(&["get", "--sae", "observatory", "--to", "inria"]).output().expect("run qkdnet");
        output.status.success().then(|| keys(&output.stdout))
    });
    let kept = got.expect("a relayed key").remove(0);

    // Calern's name is the smaller one: its relay fills the pool, and its key store calls.
    assert_eq!(caller.set_targets("relay-calern", "relay-valrose", &[]), Err(Code::PermissionDenied), "a neighbour");
    for wrong in ["valrose", "calern", "Not a site"] {
        assert_eq!(caller.set_targets("control", "relay-calern", &[wrong]), Err(Code::FailedPrecondition), "{wrong}");
    }
    assert_eq!(caller.set_targets("control", "relay-calern", &["sophia"]), Ok(false));
    assert_eq!(caller.set_targets("control", "relay-calern", &[]), Ok(true));
    for (store, other) in [("calern", "sophia"), ("sophia", "calern")] {
        let name = format!("kms-{store}");
        let mut request = applications(store);
        request.directory.retain(|_, site| site != other);
        request.relayed_sites = relayed("valrose");
        assert_eq!(caller.set_network("control", &name, &request), Err(Code::FailedPrecondition), "a link's end");
        request.relayed_sites.clear();
        assert_eq!(caller.set_network("control", &name, &request), Ok(true), "{store}");
        assert_eq!(caller.pools(&name).into_keys().collect::<Vec<_>>(), ["valrose"], "{store}");
    }
    let refused = network.key(&["get", "--sae", "observatory", "--to", "inria"]).output().expect("run qkdnet");
    assert!(!refused.status.success(), "a key for a site that has gone");
    success(network.key(&["get", "--sae", "observatory", "--to", "university"]));

    for (store, other) in [("calern", "sophia"), ("sophia", "calern")] {
        let request = SetNetworkRequest { relayed_sites: relayed(other), ..applications(store) };
        assert_eq!(caller.set_network("control", &format!("kms-{store}"), &request), Ok(true), "{store}");
    }
    assert_eq!(caller.set_targets("control", "relay-calern", &["sophia"]), Ok(true));
    eventually("the key stores talk again", || {
        ["kms-calern", "kms-sophia"]
            .iter()
            .all(|store| caller.pools(store).len() == 2 && caller.pools(store).into_values().all(|connected| connected))
            .then_some(())
    })
    .expect("talk");
    // What was supplied before is still there, and new key comes.
    let fetched = network.fetch("inria", "observatory", &[&kept.0]);
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    assert!(keys(&fetched.stdout) == [kept], "another key of this name");
    let relayed_before = relayed_keys(&caller);
    eventually("the relay goes on", || {
        // What is there already has to be used up first.
        let _ = network.key(&["get", "--sae", "observatory", "--to", "inria", "--number", "64"]).output();
        (relayed_keys(&caller) > relayed_before).then_some(())
    })
    .expect("more relayed keys");
    network.stop();
}

/// Keys that Calern's relay has made with Sophia since it has that target.
fn relayed_keys(caller: &Caller) -> u64 {
    let mut client = RelayClient::new(caller.channel("control", "relay-calern"));
    let status = caller.runtime.block_on(client.get_status(proto::relay::v1::GetStatusRequest {}));
    status.expect("a status").into_inner().routes.iter().map(|route| route.keys_relayed).sum()
}
