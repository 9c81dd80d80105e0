//! What the previous release left behind is opened: pools go on, and no key comes a second time.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use operator::resource::TopologyObject;
use serde::Deserialize;
use topology::plan::RunOptions;

use crate::keys::{Network, eventually, keys};
use crate::secrecy::{Needles, files};
use crate::support::{Place, digest, repository, success};

/// A key that an application of the previous release got.
#[derive(Deserialize)]
struct Supplied {
    master: String,
    slave: String,
    #[serde(rename = "key_ID")]
    id: String,
    key: String,
    fetched: bool,
}

fn fixture(name: &str) -> PathBuf {
    repository().join("tests/fixtures/v0.1").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(fixture(name)).expect("read a fixture")
}

/// The network of the previous release, stopped.
fn left_behind() -> Place {
    let place = Place::new(&text("network.yaml"));
    let mut unpack = Command::new("tar");
    unpack.arg("-xzf").arg(fixture("data.tar.gz")).arg("-C").arg(place.path("."));
    success(unpack);
    place
}

fn supplied() -> Vec<Supplied> {
    serde_json::from_str(&text("keys.json")).expect("the keys of a fixture")
}

/// Bits at each end, by what `qkdnet digest` says, which is the same for both ends of a link.
fn bits(data: &Path) -> [u64; 2] {
    let ends = digest(data);
    let [calern, valrose_calern, sophia, valrose_sophia] = &ends[..] else { panic!("{ends:?}") };
    assert_eq!((calern.bits, &calern.sha256), (valrose_calern.bits, &valrose_calern.sha256));
    assert_eq!((sophia.bits, &sophia.sha256), (valrose_sophia.bits, &valrose_sophia.sha256));
    [calern.bits, sophia.bits]
}

/// Files in which key is that was supplied.
fn with_key(data: &Path, supplied: &[Supplied]) -> Vec<PathBuf> {
    let keys: Vec<_> = supplied.iter().map(|one| (one.id.clone(), one.key.clone())).collect();
    let needles = Needles::of(&keys);
    let mut files = files(data);
    files.retain(|file| !needles.found(&std::fs::read(file).expect("read a file")).is_empty());
    files
}

#[test]
fn a_data_folder_of_the_previous_release_goes_on_and_no_key_comes_twice() {
    let place = left_behind();
    let data = place.path("data");
    assert_eq!(bits(&data), [90_925, 287_139]);
    let old = supplied();
    let in_the_clear = with_key(&data, &old);
    assert!(in_the_clear.iter().any(|file| file.ends_with("blocks.qkd")), "release 0.1 kept key: {in_the_clear:?}");
    let network = Network::start_with(&place, "process", |_| {});
    let ready = || network.status().filter(|status| status["ready"] == true);
    eventually("the key stores answer", ready).expect("a network that is ready");
    for Supplied { master, slave, id, key, fetched } in &old {
        let fetch = || network.fetch(slave, master, &[id]);
        if *fetched {
            let again = fetch();
            assert!(!again.status.success(), "{id} came a second time");
        } else {
            let output = eventually("a key of the previous release is fetched", || {
                let output = fetch();
                output.status.success().then_some(output)
            });
            let output = output.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&fetch().stderr)));
            assert!(keys(&output.stdout) == [(id.clone(), key.clone())], "{id} is not what the master got");
            assert!(!fetch().status.success(), "{id} came a second time");
        }
    }
    let known: BTreeSet<&str> = old.iter().flat_map(|one| [one.id.as_str(), one.key.as_str()]).collect();
    for [master, slave] in [["university", "inria"], ["inria", "university"], ["observatory", "inria"]] {
        let new = network.get(master, slave, "8");
        assert_eq!(new.len(), 8);
        for (id, key) in &new {
            assert!(!known.contains(id.as_str()) && !known.contains(key.as_str()), "{id} was supplied before");
        }
        let ids: Vec<&str> = new.iter().map(|(id, _)| id.as_str()).collect();
        let fetched = network.fetch(slave, master, &ids);
        assert!(keys(&fetched.stdout) == new, "{}", String::from_utf8_lossy(&fetched.stderr));
    }
    let more = eventually("new blocks are stored", || {
        let stored = |site: &str, link: &str| {
            let store = module::store::BlockStore::open_read_only(module::store::path(&data, site, link));
            store.map_or(0, |store| store.committed_totals().1)
        };
        (stored("calern", "valrose-calern") > 90_925 && stored("sophia", "valrose-sophia") > 287_139).then_some(())
    });
    assert!(more.is_some());
    network.stop();
    let after = bits(&data);
    assert!(after[0] > 90_925 && after[1] > 287_139, "{after:?}");
    assert_eq!(with_key(&data, &old), Vec::<PathBuf>::new(), "key in the clear");
}

#[test]
fn a_topology_object_of_the_previous_release_gives_the_network_of_its_file() {
    let object: TopologyObject = serde_yaml::from_str(&text("topology-object.yaml")).expect("an object");
    let status = object.status.as_ref().expect("a status");
    assert_eq!((status.links_flowing.as_str(), status.conditions.len()), ("2/2", 3));
    let accepted = operator::validate::validate(&object).unwrap_or_else(|refused| panic!("{refused}"));
    let file = topology::parse("network.yaml", text("network.yaml").as_bytes()).unwrap_or_else(|all| panic!("{all}"));
    let plan = |topology| {
        let plan = topology::plan::plan(topology, &RunOptions::default());
        let configuration = |service: &topology::plan::Service| serde_yaml::to_string(&service.config).expect("YAML");
        plan.services.iter().map(configuration).collect::<Vec<_>>()
    };
    assert_eq!(plan(&accepted.topology), plan(&file.topology));
}
