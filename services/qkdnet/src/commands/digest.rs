//! `qkdnet digest`: both ends of a link must print the same, and equal seeds the same again.

use std::path::Path;

use runner::Failure;
use serde::{Deserialize, Serialize};

use super::data::link_ends;
use super::{print, print_json};
use crate::cli::{DigestArgs, Output, Place};
use crate::cluster;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Row {
    site: String,
    link: String,
    blocks: u64,
    bits: u64,
    sha256: String,
}

pub fn run(args: &DigestArgs) -> Result<(), Failure> {
    let mut rows = match args.place.place() {
        Place::Data(data) if args.pools => return pools(data, args.output.output),
        Place::Data(data) => rows(data, args.first)?,
        Place::Cluster(place) => {
            let first = args.first.map(|blocks| blocks.to_string());
            let words: Vec<&str> = ["digest"].into_iter().chain(first.iter().flat_map(|n| ["--first", n])).collect();
            cluster::run(place, async |there| cluster::link_ends(there, &words).await)?
        }
    };
    rows.sort_by(|a: &Row, b: &Row| (&a.link, &a.site).cmp(&(&b.link, &b.site)));
    match args.output.output {
        Output::Json => print_json(&rows),
        Output::Text => print(&text(&rows)),
    }
}

/// One end of a pool.
#[derive(Serialize)]
struct PoolRow {
    site: String,
    peer: String,
    generation: u32,
    bits: u64,
    hmac_sha256: String,
}

fn pools(data: &Path, output: Output) -> Result<(), Failure> {
    let digests = kms::compare::pools(data).map_err(|error| {
        Failure::failed(shell::chain(&error).to_string())
            .hint("the key stores of a network that runs cannot be opened: stop it first")
    })?;
    let row = |digest: kms::compare::PoolDigest| PoolRow {
        site: digest.site,
        peer: digest.peer,
        generation: digest.generation,
        bits: digest.bits,
        hmac_sha256: digest.hmac_sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    let rows: Vec<PoolRow> = digests.into_iter().map(row).collect();
    let width = |name: fn(&PoolRow) -> &String| rows.iter().map(|row| name(row).len()).max().unwrap_or(0);
    let (site_width, peer_width) = (width(|row| &row.site), width(|row| &row.peer));
    let line = |row: &PoolRow| {
        let PoolRow { site, peer, generation, bits, hmac_sha256 } = row;
        format!("{site:<site_width$}  {peer:<peer_width$}  {generation:>4}  {bits:>12}  {hmac_sha256}\n")
    };
    match output {
        Output::Json => print_json(&rows),
        Output::Text => print(&rows.iter().map(line).collect::<String>()),
    }
}

fn rows(data: &Path, first: Option<usize>) -> Result<Vec<Row>, Failure> {
    let first = first.unwrap_or(usize::MAX);
    let ends = link_ends(data)?;
    ends.into_iter()
        .map(|end| {
            let store = end.open()?;
            let digest = store.digest_of_first(first);
            let blocks = store.committed_totals().0.min(first as u64);
            let sha256 = digest.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
            Ok(Row { site: end.site, link: end.link, blocks, bits: digest.bits, sha256 })
        })
        .collect()
}

fn text(rows: &[Row]) -> String {
    let site_width = rows.iter().map(|row| row.site.len()).max().unwrap_or(0);
    let link_width = rows.iter().map(|row| row.link.len()).max().unwrap_or(0);
    rows.iter()
        .map(|row| format!("{:<site_width$}  {:<link_width$}  {:>12}  {}\n", row.site, row.link, row.bits, row.sha256))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::data::testing::write;
    use super::*;

    #[test]
    fn equal_keys_at_two_sites_have_equal_lines() {
        let data = tempfile::tempdir().unwrap();
        for site in ["valrose", "sophia"] {
            write(data.path(), site, "valrose-sophia", &[13, 70]);
        }
        write(data.path(), "calern", "valrose-calern", &[]);
        std::fs::create_dir(data.path().join("_spans")).unwrap();
        let rows = rows(data.path(), None).unwrap();
        assert_eq!(rows.len(), 3);
        assert_eq!((rows[0].site.as_str(), rows[0].bits), ("calern", 0));
        assert_eq!((rows[1].bits, rows[1].blocks), (83, 2));
        assert_eq!(rows[1].sha256, rows[2].sha256);
        assert_ne!(rows[0].sha256, rows[1].sha256);
        let text = text(&rows);
        assert!(text.starts_with("calern   valrose-calern             0  e3b0c44298fc1c14"), "{text}");
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn ends_that_differ_in_their_last_block_agree_in_the_ones_before() {
        let data = tempfile::tempdir().unwrap();
        write(data.path(), "valrose", "valrose-sophia", &[13, 70, 21]);
        write(data.path(), "sophia", "valrose-sophia", &[13, 70]);
        let all = rows(data.path(), None).unwrap();
        assert_ne!(all[0].sha256, all[1].sha256);
        for (blocks, bits) in [(1, 13), (2, 83)] {
            let common = rows(data.path(), Some(blocks)).unwrap();
            assert_eq!(common.iter().map(|row| row.bits).collect::<Vec<_>>(), [bits, bits]);
            assert_eq!(common[0].sha256, common[1].sha256);
        }
        assert_eq!(rows(data.path(), Some(9)).unwrap(), all);
    }

    #[test]
    fn a_directory_without_key_is_named() {
        let data = tempfile::tempdir().unwrap();
        let failure = rows(data.path(), None).unwrap_err();
        assert!(failure.to_string().contains("holds no key"));
        assert!(rows(&data.path().join("absent"), None).unwrap_err().to_string().contains("cannot read"));
    }
}
