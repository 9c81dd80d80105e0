//! `spec.instruments` and `use`: what a definition gives, and what is said where it cannot.

#![allow(clippy::unwrap_used)]

mod golden;

use std::fmt::Write;

use golden::{golden, report};
use topology::document::{Link, Snspd};
use topology::plan::{RunOptions, plan};
use topology::provenance::{Origin, physical_values};
use topology::{Document, Topology, parse};

const GOOD: &str = include_str!("instruments.yaml");

fn read(text: &str) -> Document {
    parse("net.yaml", text.as_bytes()).unwrap_or_else(|problems| panic!("{problems}"))
}

fn changed(changes: &[(&str, &str)]) -> String {
    golden::changed(GOOD, changes)
}

golden! {
    // What is named.
    unknown_definition: ["{use: crystal}" => "{use: cristal}"];
    unknown_definition_like_nothing: ["{use: crystal}" => "{use: laser}"];
    unknown_definition_in_a_definition: ["detector: {use: cold}" => "detector: {use: clod}"];
    definition_of_another_kind: ["detector: {use: cold}" => "detector: {use: smf}"];
    no_definition_of_the_kind: ["use: receiver, fibre" => "use: receiver, clock: {use: rubidium}, fibre"];
    definition_that_uses_itself: ["smf: {attenuation" => "smf: {use: smf, attenuation"];
    definitions_that_use_each_other: ["type: snspd\n" => "use: cold\n"];
    use_that_is_a_number: ["{use: crystal}" => "{use: 7}"];
    use_that_is_a_list: ["{use: crystal}" => "{use: [crystal, laser]}"];
    use_where_nothing_can_be_defined: ["{name: east}" => "{name: east, use: receiver}"];
    // What is different.
    field_that_the_definition_lacks: ["{use: crystal}" => "{use: crystal, gate: 100 ps}"];
    field_that_a_part_lacks: ["{length: 10 km}" => "{length: 10 km, dispersion: {coeficient: 17 ps/nm/km}}"];
    wrong_value_in_a_place: ["{use: crystal}" => "{use: crystal, pairRate: 1e8 km}"];
    type_beside_use: ["{use: crystal}" => "{use: crystal, type: spdc-cw}"];
    field_in_neither_place: ["site: middle, pairRate: 1e8 /s" => "site: middle"];
    part_in_neither_place: [", detector: {use: cold}" => ""];
    // What is defined.
    wrong_value_in_a_definition: ["efficiency: 80 %" => "efficiency: 180 %"];
    value_of_a_definition_that_cannot_be: ["jitter: 50 ps" => "jitter: 1 s"];
    unknown_field_in_a_definition: ["attenuation: 0.25 dB/km" => "atenuation: 0.25 dB/km"];
    wrong_value_in_a_definition_that_nobody_uses: [
        "      smf: {" => "      other: {length: 3 kg}\n      smf: {"
    ];
    definition_without_a_type: ["{type: spdc-cw, site: middle" => "{site: middle"];
    definition_that_is_no_block: ["smf: {attenuation: 0.25 dB/km, dispersion: {coefficient: 18 ps/nm/km, compensation: 0 ps/nm}}" => "smf: 3 dB"];
    definition_whose_name_is_none: ["      smf: {" => "      SMF_28: {}\n      smf: {"];
    unknown_kind_of_instrument: ["    detector:\n" => "    detectors:\n"];
    instruments_that_are_a_list: ["  instruments:\n" => "  instruments: [crystal]\n  further:\n"];
}

#[test]
fn a_definition_that_nobody_uses_is_a_warning() {
    let document = read(&changed(&[("      smf: {", "      spare: {use: smf}\n      smf: {")]));
    insta::assert_snapshot!(document.warnings.to_string());
}

fn detectors(topology: &Topology) -> [&Snspd; 2] {
    let Link { arms, .. } = &topology.spec.links[0];
    [0, 1].map(|end| {
        let topology::document::Detector::Snspd(detector) = &arms[end].detector else { panic!("nanowires") };
        detector
    })
}

#[test]
fn a_place_has_the_values_of_its_definition_and_its_own_over_them() {
    let topology = read(GOOD).topology;
    let link = &topology.spec.links[0];
    assert_eq!(link.source_site().as_str(), "middle");
    for (arm, length) in link.arms.iter().zip(["10 km", "12 km"]) {
        assert_eq!(
            (arm.fibre.length.to_string(), arm.fibre.attenuation.to_string().as_str()),
            (length.to_owned(), "0.25 dB/km")
        );
        assert_eq!(arm.fibre.dispersion.coefficient.to_string(), "18 ps/nm/km");
    }
    assert_eq!(link.arms[0].fibre.dispersion.compensation.to_string(), "0 ps/nm");
    assert_eq!(link.arms[1].fibre.dispersion.compensation.to_string(), "-10 ps/nm");
    for detector in detectors(&topology) {
        assert_eq!(detector.dark_count_rate.to_string(), "10 cps");
        assert_eq!(detector.efficiency.to_string(), "80 %");
    }
}

#[test]
fn a_part_with_a_use_or_a_type_of_its_own_takes_the_place_of_the_definitions() {
    let own = "use: receiver, detector: {use: nanowire}, fibre";
    let topology = read(&changed(&[("use: receiver, fibre", own)])).topology;
    assert_eq!(detectors(&topology).map(|one| one.dark_count_rate.to_string()), ["100 cps", "10 cps"]);
    let own = "use: receiver, detector: {type: snspd, efficiency: 70 %, jitter: 40 ps}, fibre";
    let topology = read(&changed(&[("use: receiver, fibre", own)])).topology;
    assert_eq!(detectors(&topology).map(|one| one.dark_count_rate.to_string()), ["100 cps", "10 cps"]);
    assert!(detectors(&topology)[0].provenance.is_empty());
    let own = "use: receiver, detector: {efficiency: 70 %}, fibre";
    let topology = read(&changed(&[("use: receiver, fibre", own)])).topology;
    assert_eq!(detectors(&topology).map(|one| one.efficiency.to_string()), ["70 %", "80 %"]);
    assert_eq!(detectors(&topology).map(|one| one.dark_count_rate.to_string()), ["10 cps", "10 cps"]);
}

#[test]
fn a_link_can_be_defined_and_its_list_of_arms_is_taken_whole() {
    let (before, _) = GOOD.split_once("  links:\n").unwrap();
    let metro = "    link:
      metro:
        protocol: bbm92-energy-time
        source: {use: crystal}
        arms:
          - {site: west, use: receiver, fibre: {length: 10 km}}
          - {site: east, use: receiver, fibre: {length: 12 km, dispersion: {compensation: -10 ps/nm}}}
        window: 120 ps
  sites:
";
    let uses = "  links:
    - {name: west-east, use: metro}
    - {name: again, use: metro, window: 100 ps, source: {pairRate: 2e8 /s}}
";
    let text = before.replace("  sites:\n", metro) + uses;
    let topology = read(&text).topology;
    assert_eq!(topology.spec.links[0], read(GOOD).topology.spec.links[0]);
    assert_eq!(topology.spec.links[1].window.unwrap().to_string(), "100 ps");
    let topology::document::Source::SpdcCw(source) = &topology.spec.links[1].source else { panic!("pairs") };
    assert_eq!((source.pair_rate.value(), source.site.as_str()), (2e8, "middle"));
    assert_eq!(topology.spec.links[1].arms, topology.spec.links[0].arms);
}

/// Origins of the efficiency and the jitter of the first detector.
fn origins(place: &str) -> [Origin; 2] {
    let topology = read(&changed(&[("use: receiver, fibre", place)])).topology;
    let values = physical_values(&topology);
    ["efficiency", "jitter"].map(|field| {
        let path = format!("links[west-east].arms[west].detector.{field}");
        values.iter().find(|value| value.path == path).unwrap().origin
    })
}

#[test]
fn the_origin_of_a_value_does_not_hold_for_the_one_in_its_place() {
    assert_eq!(origins("use: receiver, fibre"), [Origin::Published, Origin::Published]);
    let other = "use: receiver, detector: {efficiency: 70 %}, fibre";
    assert_eq!(origins(other), [Origin::Assumed, Origin::Published]);
    let own = "use: receiver, detector: {efficiency: 70 %, provenance: {efficiency: \"inferred: fit\"}}, fibre";
    assert_eq!(origins(own), [Origin::Inferred, Origin::Published]);
    let outer =
        "use: receiver, detector: {efficiency: 70 %}, provenance: {detector.efficiency: \"inferred: fit\"}, fibre";
    assert_eq!(origins(outer), [Origin::Inferred, Origin::Published]);
}

#[test]
fn an_origin_of_a_whole_block_does_not_hold_for_a_value_in_its_place() {
    let with_origin =
        ("attenuation: 0.25 dB/km,", "attenuation: 0.25 dB/km, provenance: {dispersion: \"published: data sheet\"},");
    let topology = read(&changed(&[with_origin])).topology;
    let of = |path: &str| {
        let value = physical_values(&topology).into_iter().find(|value| value.path == path).unwrap();
        (value.origin, value.source.unwrap())
    };
    let [first, second] = ["west", "east"].map(|site| format!("links[west-east].arms[{site}].fibre.dispersion"));
    assert_eq!(of(&format!("{first}.compensation")).0, Origin::Published);
    assert_eq!(of(&format!("{second}.coefficient")).0, Origin::Published);
    let given = of(&format!("{second}.compensation"));
    assert_eq!(given, (Origin::Assumed, "assumed: in place of the value of \"receiver\"".to_owned()));
}

#[test]
fn definitions_that_would_fill_the_memory_are_refused() {
    let mut text = String::from(
        "apiVersion: qkdnet.dev/v1alpha1\nkind: Topology\nmetadata: {name: laughs}\nspec:\n  instruments:\n    arm:\n      a:\n        provenance:\n",
    );
    for field in 0..500 {
        writeln!(text, "          f{field}: x").unwrap();
    }
    text.push_str("  sites: [{name: a}, {name: b}]\n  links:\n");
    for link in 0..3000 {
        writeln!(text, "    - {{name: l{link}, arms: [{{site: a, use: a}}, {{site: b, use: a}}]}}").unwrap();
    }
    let said = report(&text);
    assert!(said.contains("definitions expand to more than 1000000 values"), "{:.500}", said);
}

#[test]
fn chains_of_definitions_come_to_an_end() {
    let chain = |length: usize| {
        let mut chain = String::from("      smf: {use: f1, ");
        for link in 1..length {
            write!(chain, "groupIndex: 1.4}}\n      f{link}: {{use: f{}, ", link + 1).unwrap();
        }
        chain + &format!("groupIndex: 1.4}}\n      f{length}: {{")
    };
    read(&changed(&[("      smf: {", &chain(13))]));
    for length in [17, 200] {
        let said = report(changed(&[("      smf: {", &chain(length))]));
        assert!(said.contains("more than 16 definitions use one another"), "{said}");
    }
}

#[test]
fn a_hundred_places_that_use_a_wrong_definition_are_one_problem() {
    let mut text = GOOD.replace("efficiency: 80 %", "efficiency: 180 %");
    let links = text.find("    - name: west-east").unwrap();
    let link = text[links..].to_owned();
    for number in 0..100 {
        text.push_str(&link.replace("west-east", &format!("link-{number}")));
    }
    let problems = parse("net.yaml", text.as_bytes()).unwrap_err();
    assert_eq!(problems.diagnostics.len(), 1, "{problems}");
    assert_eq!(&*problems.diagnostics[0].path, "spec.instruments.detector.nanowire.efficiency");
    assert!(problems.to_string().contains("more places"), "{problems}");
}

#[test]
fn the_compact_files_of_nice_mean_what_they_meant_written_out() {
    for (name, compact, written_out) in [
        ("nice", include_str!("../../../topologies/nice.yaml"), include_str!("written-out/nice.yaml")),
        ("nice-50km", include_str!("../../../topologies/nice-50km.yaml"), include_str!("written-out/nice-50km.yaml")),
    ] {
        assert!(compact.lines().count() < 150, "{name} has {} lines", compact.lines().count());
        let [compact, written_out] = [compact, written_out].map(|text| read(text).topology);
        assert_eq!(compact, written_out, "{name}");
        let [compact, written_out] = [compact, written_out].map(|topology| plan(&topology, &RunOptions::default()));
        assert_eq!(compact, written_out, "{name}");
    }
}

#[test]
fn an_expanded_document_is_one_without_definitions_and_plans_to_the_same() {
    for text in [GOOD, include_str!("../../../topologies/nice.yaml")] {
        let topology = read(text).topology;
        let expanded = serde_yaml::to_string(&topology).unwrap();
        assert!(!expanded.contains("use:") && !expanded.contains("instruments:"), "{expanded}");
        let again = read(&expanded).topology;
        let options = RunOptions::default();
        assert_eq!(plan(&again, &options), plan(&topology, &options));
    }
}

#[test]
fn null_says_nothing_beside_a_use_and_in_place_of_one() {
    let good = read(GOOD).topology;
    let unset = "{use: crystal, pairRate: null, wavelength: ~}";
    assert_eq!(read(&changed(&[("{use: crystal}", unset)])).topology, good);
    let own = "{use: null, type: spdc-cw, site: middle, pairRate: 1e8 /s}";
    assert_eq!(read(&changed(&[("source: {use: crystal}", &format!("source: {own}"))])).topology, good);
    let written_out = include_str!("written-out/nice-50km.yaml");
    let without = written_out.replacen("spec:\n", "spec:\n  instruments:\n", 1);
    assert_eq!(read(&without).topology, read(written_out).topology);
}

#[test]
fn a_name_that_is_none_is_said_once_and_never_as_it_is() {
    let name = format!("\\e[31m{}", "a".repeat(60_000));
    let fields: String = (0..500).map(|field| format!(", f{field}: 1")).collect();
    let broken = format!("    detector:\n      ? \"{name}\"\n      : {{use: nanowire{fields}}}\n");
    let said = report(changed(&[("    detector:\n", &broken)]));
    assert!(said.contains("is not a name") && !said.contains('\x1b'), "{:.500}", said);
    assert!(said.len() < 1 << 20, "{} bytes", said.len());
}

/// Each would be compared with every name, which took minutes.
#[test]
fn thousands_of_unknown_names_are_told_as_far_as_problems_are() {
    let names: String = (0..250).map(|n| format!("      {:0>60}-{n}: {{type: spdc-cw}}\n", "a")).collect();
    let mut text = changed(&[("    source:\n", &format!("    source:\n{names}"))]);
    let links = text.find("    - name: west-east").unwrap();
    let link = text[links..].replace("{use: crystal}", &format!("{{use: {:0>60}-x}}", "b"));
    for number in 0..3000 {
        text.push_str(&link.replace("west-east", &format!("link-{number}")));
    }
    let problems = parse("net.yaml", text.as_bytes()).unwrap_err();
    assert!(problems.diagnostics.len() >= 1000, "{}", problems.diagnostics.len());
}
