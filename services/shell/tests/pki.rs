//! The folder of certificates.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use shell::Credentials;
use shell::pki::{self, Authority};

fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entry = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())
    };
    fs::read_dir(folder).unwrap().map(entry).collect()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_folder_holds_one_certificate_a_service_for_its_owner_alone() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("pki");
    pki::prepare(&folder, "nice", &names(&["source", "detector-a"])).unwrap();
    let files: Vec<String> = contents(&folder).into_keys().collect();
    assert_eq!(files, ["ca.key", "ca.pem", "detector-a.key", "detector-a.pem", "source.key", "source.pem"]);
    for file in &files {
        assert_eq!(fs::metadata(folder.join(file)).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(Credentials::from_folder(&folder, "source").unwrap().name(), "source");
}

#[test]
fn what_is_good_is_kept_and_what_is_missing_or_foreign_is_made() {
    let folder = tempfile::tempdir().unwrap();
    pki::prepare(folder.path(), "nice", &names(&["a", "b", "c"])).unwrap();
    let before = contents(folder.path());
    fs::remove_file(pki::key_path(folder.path(), "b")).unwrap();
    Authority::new("nice").unwrap().issue("c").unwrap().save(folder.path()).unwrap();
    pki::prepare(folder.path(), "nice", &names(&["a", "b", "c", "d"])).unwrap();
    let after = contents(folder.path());
    for kept in ["ca.pem", "ca.key", "a.pem", "a.key"] {
        assert_eq!(before[kept], after[kept], "{kept}");
    }
    for made in ["b.pem", "b.key", "c.pem", "c.key"] {
        assert_ne!(before[made], after[made], "{made}");
    }
    assert!(after.contains_key("d.pem"));

    // Without its authority nothing is worth anything.
    fs::write(pki::authority_path(folder.path()), "rubbish").unwrap();
    pki::prepare(folder.path(), "nice", &names(&["a"])).unwrap();
    assert_ne!(contents(folder.path())["a.pem"], after["a.pem"]);
    Credentials::from_folder(folder.path(), "a").unwrap();
}

#[test]
fn names_that_could_leave_the_folder_or_name_everybody_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for bad in ["../a", "localhost", "A", ""] {
        assert!(pki::prepare(folder.path(), "nice", &names(&[bad])).is_err(), "{bad}");
    }
    assert!(contents(folder.path()).is_empty());
}

#[test]
fn keys_do_not_show_when_printed() {
    let authority = Authority::new("nice").unwrap();
    let issued = authority.issue("source").unwrap();
    let credentials =
        Credentials::from_pem(authority.certificate_pem(), &issued.certificate_pem, &issued.key_pem).unwrap();
    let printed = format!("{authority:?} {issued:?} {credentials:?}");
    assert!(!printed.contains("PRIVATE") && printed.len() < 200, "{printed}");
}
