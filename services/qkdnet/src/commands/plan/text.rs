//! The report for people.

use std::fmt::Write as _;

use topology::figure::{Figure, Figures};
use topology::plan::proposal::Proposal;

use super::{LinkReport, PairsReport, PulsesReport, Report, TwinFieldReport};

pub(super) fn render(report: &Report) -> String {
    let links = match report.links.len() {
        1 => "1 link".to_owned(),
        count => format!("{count} links"),
    };
    let mut text = format!("{}: {links}, {} services\n", report.topology, report.services);
    for link in &report.links {
        text.push('\n');
        match link {
            LinkReport::Pairs(link) => pairs_text(&mut text, link),
            LinkReport::Pulses(link) => pulses_text(&mut text, link),
            LinkReport::TwinField(link) => twin_field_text(&mut text, link),
        }
        if let Some(proposal) = report.proposals.iter().find(|proposal| proposal.link == *name_of(link)) {
            proposal_text(&mut text, proposal);
        }
    }
    let (tags, memory) = (si(report.total_tags_hz), bytes(report.total_memory_bytes));
    let _ = writeln!(text, "\nall links          {tags}tags/s, {memory} in modules");
    for warning in &report.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

fn name_of(link: &LinkReport) -> &String {
    match link {
        LinkReport::Pairs(link) => &link.name,
        LinkReport::Pulses(link) => &link.name,
        LinkReport::TwinField(link) => &link.name,
    }
}

fn pulses_text(text: &mut String, link: &PulsesReport) {
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<17}{value}");
    };
    let [transmitter, receiver] = &link.sites;
    line("link", format!("{}: {transmitter} - {receiver}, {}", link.name, link.protocol));
    line("loss", format!("{:.2} dB, detectors included", link.total_loss_db));
    line(
        "pulses",
        format!("{}/s, {:.3e} in a block of {} s", si(link.pulse_rate_hz), link.pulses_per_block, link.block_s),
    );
    for intensity in &link.intensities {
        let (mean, share, qber) = (intensity.mean_photons, 100.0 * intensity.probability, 100.0 * intensity.qber);
        line(intensity.name, format!("{mean} photons, {share:.4} %: gain {:.4e}, QBER {qber:.2} %", intensity.gain));
    }
    let live = 100.0 * link.live_share;
    line("time tags", format!("{}/s, detectors ready {live:.2} % of the time", si(link.tags_hz[1])));
    let [own, peer] = link.module_memory_bytes.map(bytes);
    line("memory", format!("{own} + {peer} for the two modules"));
    let (key, check) = (si(link.sifted_key_hz), si(link.sifted_check_hz));
    let errors = format!("QBER {:.2} % and {:.2} %", 100.0 * link.qber_key, 100.0 * link.qber_check);
    line("sifted", format!("key basis {key}bit/s, check basis {check}bit/s, {errors}"));
    let (asymptotic, finite) = (si(link.skr_asymptotic_bps), si(link.skr_finite_bps));
    line("key", format!("{asymptotic}bit/s asymptotic, {finite}bit/s finite in blocks of {} s", link.block_s));
    let margin = |db: Option<f64>| db.map_or("none".to_owned(), |db| format!("{db:.2} dB"));
    let margins = [link.margin_asymptotic_db, link.margin_finite_db].map(margin);
    if link.margin_asymptotic_db.is_some() {
        let [asymptotic, finite] = margins;
        line("margin", format!("{asymptotic} of loss until key ends, {finite} finite in blocks of {} s", link.block_s));
    }
    let f = link.reconciliation_efficiency;
    line(
        "security",
        format!(
            "{} bound, reconciliation at {f} of the Shannon limit, blocks abort above {:.1} %",
            link.bound,
            100.0 * link.tolerated_qber
        ),
    );
    let (tags, share) = (link.authentication_bits_per_block, 100.0 * link.authentication_fraction);
    line("authentication", format!("{tags:.0} bit per block, {share:.2} % of the key"));
    line("", hourly(&link.figures));
    passes_text(&mut line, link);
    for note in &link.notes {
        line("note", note.clone());
    }
}

fn twin_field_text(text: &mut String, link: &TwinFieldReport) {
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<17}{value}");
    };
    let [first, second] = &link.sites;
    line("link", format!("{}: {first} - {} - {second}, {}", link.name, link.station, link.protocol));
    let [a, b] = link.arm_loss_db;
    line("loss", format!("{a:.2} dB + {b:.2} dB = {:.2} dB, detectors included", link.total_loss_db));
    let (windows, dark) = (si(link.window_rate_hz), link.dark_probability);
    line("windows", format!("{windows}/s, {:.3e} in a block of {} s", link.windows_per_block, link.block_s));
    line("station", format!("dark counts {dark:.2e} per window and detector, visibility {:.4}", link.visibility));
    let (unpaired, qber) = (si(link.unpaired_hz), 100.0 * link.unpaired_qber);
    line("heralds for key", format!("{unpaired}bit/s, {qber:.2} % wrong"));
    let (sifted, qber) = (si(link.sifted_key_hz), 100.0 * link.qber_key);
    line("odd pairs", format!("{sifted}bit/s, QBER {qber:.4} %"));
    let (check, qber) = (si(link.interfering_hz), 100.0 * link.qber_check);
    line("interference", format!("{check}heralds/s of weak decoys in phase slices, {qber:.2} % wrong"));
    let (asymptotic, finite) = (si(link.skr_asymptotic_bps), si(link.skr_finite_bps));
    let block_s = link.block_s;
    line("key", format!("{asymptotic}bit/s asymptotic, {finite}bit/s finite (simplified) in blocks of {block_s} s"));
    line("repeaterless", format!("{}bit/s at most without a station (PLOB)", si(link.repeaterless_bps)));
    let f = link.reconciliation_efficiency;
    let (bound, tolerated) = (link.bound, 100.0 * link.tolerated_qber);
    line(
        "security",
        format!("{bound} bound, reconciliation at {f} of the Shannon limit, blocks abort above {tolerated:.1} %"),
    );
    for row in &link.references {
        let (published, expected, unit) = (row.published, row.expected, row.unit);
        let name = if row.quantity == "secretKeyRate" { "published key" } else { row.quantity };
        line(name, format!("{published} {unit}, expected {} {unit}: {}", digits(expected), row.verdict));
        line("", row.source.clone());
    }
    for note in &link.notes {
        line("note", note.clone());
    }
}

/// Passes that are listed for people; programs get all of them.
const PASSES_SHOWN: usize = 12;

fn passes_text(line: &mut impl FnMut(&str, String), link: &PulsesReport) {
    for (index, pass) in link.passes.iter().take(PASSES_SHOWN).enumerate() {
        let name = if index == 0 { "passes" } else { "" };
        let (elevation, range) = (pass.elevation_deg, pass.closest_km);
        line(name, format!("{}, {:.0} s, up to {elevation:.1} deg at {range:.1} km", pass.rise, pass.duration_s));
        let (loss, qber) = (pass.mean_loss_db, 100.0 * pass.qber_key);
        let (sifted, key) = (si(pass.sifted_bits), si(pass.key_bits));
        line("", format!("{loss:.2} dB in the mean, {sifted}bit sifted, QBER {qber:.2} %, {key}bit of key"));
    }
    if link.passes.len() > PASSES_SHOWN {
        line("", format!("and {} more", link.passes.len() - PASSES_SHOWN));
    }
}

fn proposal_text(text: &mut String, proposal: &Proposal) {
    let (bound, block_s) = (proposal.bound, proposal.block_s);
    let (today, best) = (si(proposal.today_bps), si(proposal.best_bps));
    let _ = writeln!(
        text,
        "  best choice      for blocks of {block_s} s by the {bound} bound: {best}bit/s, today {today}bit/s"
    );
    if proposal.snippet.is_empty() {
        let _ = writeln!(text, "                   no choice gives key");
        return;
    }
    let _ = writeln!(text, "                   today's values lose {:.1} %", 100.0 * proposal.lost());
    for changed in &proposal.values {
        let _ = writeln!(text, "    {:<40} {:<12.5} -> {:.5}", changed.path, changed.today, changed.best);
    }
    let _ = writeln!(text, "  in the entry of the link:");
    for line in proposal.snippet.lines() {
        let _ = writeln!(text, "    {line}");
    }
}

fn pairs_text(text: &mut String, link: &PairsReport) {
    let [first, second] = &link.sites;
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<17}{value}");
    };
    line("link", format!("{}: {first} - {} - {second}", link.name, link.source_site));
    let [a, b] = link.arm_loss_db;
    line("loss", format!("{a:.2} dB + {b:.2} dB = {:.2} dB, detectors included", link.total_loss_db));
    line("peak", format!("{:.1} ps FWHM in a window of {:.0} ps", link.peak_fwhm_ps, link.window_ps));
    for (site, rates) in link.sites.iter().zip(link.click_rate_hz) {
        let [short, long, plus, minus] = rates.map(si);
        line("clicks", format!("{site}: short {short}/s, long {long}/s, plus {plus}/s, minus {minus}/s"));
    }
    let record = format!("{} per second if recorded, in units of 1/256 ns", bytes(link.record_bytes_per_s));
    line("time tags", format!("{}/s ({record})", si(link.tags_hz[0] + link.tags_hz[1])));
    let [own, peer] = link.module_memory_bytes.map(bytes);
    line("memory", format!("{own} + {peer} for the two modules"));
    for (name, p) in [("operating point", &link.operating), ("optimum", &link.optimum)] {
        let (z, x, pairs) = (si(p.sifted_z_hz), si(p.sifted_x_hz), si(p.pair_rate_hz));
        let errors = format!("QBERz {:.2} %, QBERx {:.2} %", 100.0 * p.qber_z, 100.0 * p.qber_x);
        line(name, format!("pump {:.3} ({pairs}pairs/s), sifted Z {z}bit/s, X {x}bit/s, {errors}", p.pump));
        let (asymptotic, finite) = (si(p.skr_asymptotic_bps), si(p.skr_finite_bps));
        line("", format!("key {asymptotic}bit/s asymptotic, {finite}bit/s finite in blocks of {} s", link.block_s));
    }
    if let Some(rate) = link.skr_loss_only_bps {
        line("loss alone", format!("key {}bit/s asymptotic without the residual dispersion of the arms", si(rate)));
    }
    let (tolerated, threshold) = (100.0 * link.tolerated_qber, 100.0 * link.threshold_qber);
    line(
        "security",
        format!("{} bound, blocks abort above QBERx {tolerated:.1} % (no key above {threshold:.2} %)", link.bound),
    );
    let (tags, share) = (link.authentication_bits_per_block, 100.0 * link.authentication_fraction);
    let checks = format!("verification {:.2} %", 100.0 * link.verification_fraction);
    line("authentication", format!("{tags:.0} bit per block, {share:.2} % of the key; {checks}"));
    line("", hourly(&link.operating.figures));
    for note in &link.notes {
        line("note", note.clone());
    }
}

/// What tags cost beside what the link makes.
fn hourly(figures: &Figures) -> String {
    let [tags, key, interval] = [Figure::TagBitsPerHour, Figure::KeyBitsPerHour, Figure::CheckpointInterval]
        .map(|figure| figures.value(figure).unwrap_or_default());
    format!("tags {}bit/h, key {}bit/h, closed each {interval} s", si(tags), si(key))
}

/// Three or four significant digits and a prefix, with the blank that a unit wants before it.
fn si(value: f64) -> String {
    let (scaled, prefix) = match value.abs() {
        v if v >= 1e9 => (value / 1e9, "G"),
        v if v >= 1e6 => (value / 1e6, "M"),
        v if v >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    format!("{} {prefix}", digits(scaled))
}

fn bytes(value: f64) -> String {
    format!("{}B", si(value))
}

fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v > 0.0 && v < 0.01 => format!("{value:.2e}"),
        _ => format!("{value:.2}"),
    }
}
