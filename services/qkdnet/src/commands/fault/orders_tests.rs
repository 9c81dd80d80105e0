//! Of a network with two links from Valrose, who is told what.

use std::path::PathBuf;

use super::*;

fn roster() -> Roster {
    let link = |name: &str, sites: [&str; 2]| RosterLink {
        name: name.to_owned(),
        sites: sites.map(str::to_owned),
        source: format!("source-{name}"),
        modules: sites.map(|site| format!("detector-{name}-{site}")),
        channels: sites.map(|site| format!("channel-{name}-{site}")),
    };
    let mut links = vec![link("one", ["valrose", "sophia"]), link("two", ["valrose", "calern"])];
    let service = |kind: &str, name: &str, site: &str| RosterService {
        name: name.to_owned(),
        kind: kind.to_owned(),
        site: site.to_owned(),
        server: "control".to_owned(),
    };
    let mut services = Vec::new();
    for link in &links {
        services.push(service("source", &link.source, "plaine"));
        for end in 0..2 {
            services.push(service("detector", &link.modules[end], &link.sites[end]));
            services.push(service("channel", &link.channels[end], &link.sites[end]));
        }
    }
    let mut pulses = link("pulses", ["valrose", "calern"]);
    pulses.modules[0] = "transmitter-pulses-valrose".to_owned();
    services.push(service("source", &pulses.source, "valrose"));
    services.push(service("transmitter", &pulses.modules[0], "valrose"));
    services.push(service("detector", &pulses.modules[1], "calern"));
    links.push(pulses);
    for site in ["valrose", "sophia", "calern"] {
        services.push(service("kms", &format!("kms-{site}"), site));
        services.push(service("relay", &format!("relay-{site}"), site));
    }
    Roster { run_dir: PathBuf::new(), pki: PathBuf::new(), links, services }
}

fn told(ordered: &Ordered<'_>) -> Vec<(String, What)> {
    let orders = orders(&roster(), ordered).unwrap();
    orders.told.into_iter().map(|told| (told.service, told.fault.what.unwrap())).collect()
}

fn refused(ordered: &Ordered<'_>) -> String {
    orders(&roster(), ordered).unwrap_err().to_string()
}

#[test]
fn light_is_lost_at_the_source_on_the_arms_that_are_meant() {
    let cut = |outputs| What::Loss(Loss { outputs, loss_db: 0.0, cut: true });
    assert_eq!(told(&Ordered::Cut { link: "two", arm: None }), [("source-two".to_owned(), cut(vec![0, 1]))]);
    assert_eq!(told(&Ordered::Cut { link: "two", arm: Some("calern") }), [("source-two".to_owned(), cut(vec![1]))]);
    let more = Ordered::Loss { link: "one", arm: Some("valrose"), loss: "3 dB".parse().unwrap() };
    let loss = What::Loss(Loss { outputs: vec![0], loss_db: 3.0, cut: false });
    assert_eq!(told(&more), [("source-one".to_owned(), loss)]);
}

#[test]
fn a_link_of_pulses_has_one_arm_and_one_clock_those_of_its_receiver() {
    let cut = What::Loss(Loss { outputs: vec![1], loss_db: 0.0, cut: true });
    for arm in [None, Some("calern")] {
        assert_eq!(told(&Ordered::Cut { link: "pulses", arm }), [("source-pulses".to_owned(), cut.clone())]);
    }
    let described = orders(&roster(), &Ordered::Cut { link: "pulses", arm: None }).unwrap().description;
    assert_eq!(described, "the fibre of pulses to calern is cut");
    let said = refused(&Ordered::Cut { link: "pulses", arm: Some("valrose") });
    assert_eq!(said, "`valrose` has the transmitter of pulses, which has no arm; name `calern`");
    let said = refused(&Ordered::StopClock { link: "pulses", site: "valrose" });
    assert_eq!(said, "`valrose` has the transmitter of pulses, which has no clock of its own; name `calern`");
}

#[test]
fn a_partition_is_told_to_everyone_who_speaks_from_one_site_to_the_other() {
    let from = |site: &str| What::Partition(Partition { site: site.to_owned() });
    let expected = [
        ("channel-one-valrose", "sophia"),
        ("channel-one-sophia", "valrose"),
        ("kms-sophia", "valrose"),
        ("kms-valrose", "sophia"),
        ("relay-sophia", "valrose"),
        ("relay-valrose", "sophia"),
    ]
    .map(|(service, site)| (service.to_owned(), from(site)));
    assert_eq!(told(&Ordered::Partition { site: "sophia", other: "valrose" }), expected);
    let far = told(&Ordered::Partition { site: "sophia", other: "calern" });
    assert_eq!(far.len(), 4, "sites without a link of their own: {far:?}");
}

#[test]
fn a_disk_belongs_to_a_service() {
    let disk = |what, site, link| told(&Ordered::FillDisk { what, site, link })[0].0.clone();
    assert_eq!(disk(Stored::KeyStore, "sophia", None), "kms-sophia");
    assert_eq!(disk(Stored::Relay, "valrose", None), "relay-valrose");
    assert_eq!(disk(Stored::Blocks, "sophia", None), "detector-one-sophia");
    assert_eq!(disk(Stored::Reserve, "valrose", Some("two")), "channel-two-valrose");
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    let said = refused(&Ordered::Cut { link: "three", arm: None });
    assert_eq!(said, "there is no link `three`; there are: one, pulses, two");
    let elsewhere = refused(&Ordered::StopClock { link: "one", site: "calern" });
    assert_eq!(elsewhere, "the link one does not end at `calern`; it ends at valrose and sophia");
    let unclear = refused(&Ordered::FillDisk { what: Stored::Blocks, site: "valrose", link: None });
    assert!(unclear.contains("--link: one, two"), "{unclear}");
    assert!(refused(&Ordered::Stop { service: "kms-nice" }).contains("kms-sophia"));
    assert!(refused(&Ordered::Partition { site: "sophia", other: "sophia" }).contains("itself"));
    assert!(refused(&Ordered::Partition { site: "sophia", other: "nice" }).contains("no site `nice`"));
    let nothing = refused(&Ordered::FillDisk { what: Stored::KeyStore, site: "plaine", link: None });
    assert_eq!(nothing, "`plaine` has no key store");
}
