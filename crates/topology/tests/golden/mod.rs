//! What bad input gets: one golden file per case, the change to a good document and all that is reported.

use topology::parse;

/// The report on a file; panics if it is accepted.
pub fn report(text: impl AsRef<[u8]>) -> String {
    match parse("net.yaml", text.as_ref()) {
        Ok(_) => panic!("accepted"),
        Err(problems) => problems.to_string(),
    }
}

/// A good document with texts replaced, each of which must be there.
pub fn changed(good: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(good.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    })
}

/// Tests by name: the document, and what is changed in it.
#[allow(unused_macros)]
macro_rules! golden {
    ($($name:ident: $good:ident, $([$from:expr => $to:expr]),+;)*) => {$(
        #[test]
        fn $name() {
            let changes = [$(($from, $to)),+];
            let shown: String = changes.iter().map(|(from, to)| format!("- {from}\n+ {to}\n")).collect();
            let report = crate::golden::report(crate::golden::changed($good, &changes));
            insta::assert_snapshot!(stringify!($name), format!("{shown}\n{report}"));
        }
    )*};
    ($($name:ident: $([$from:expr => $to:expr]),+;)*) => {
        golden! { $($name: GOOD, $([$from => $to]),+;)* }
    };
}

#[allow(unused_imports)]
pub(crate) use golden;
