//! Steps in order, each with its time and verdict, and a report that CI systems read.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::cluster::repository;

/// What became of a step.
struct Case {
    name: String,
    took: Duration,
    failure: Option<String>,
}

/// The steps so far.
pub struct Suite {
    cases: Vec<Case>,
    /// Parts of names, if only some steps are wanted; steps that prepare are run always.
    filters: Vec<String>,
}

impl Suite {
    pub fn new(arguments: Vec<String>) -> Self {
        let filters = arguments.into_iter().filter(|argument| !argument.starts_with('-')).collect();
        Self { cases: Vec::new(), filters }
    }

    /// Runs a step; one that fails does not keep the others from running.
    pub fn step(&mut self, name: &str, work: impl FnOnce()) {
        if !self.filters.is_empty() && !self.filters.iter().any(|filter| name.contains(filter.as_str())) {
            return;
        }
        self.run(name, work);
    }

    /// A step without which the others have nothing to work on.
    pub fn prepare(&mut self, name: &str, work: impl FnOnce()) {
        self.run(name, work);
        if self.cases.last().is_some_and(|case| case.failure.is_some()) {
            self.finish();
        }
    }

    fn run(&mut self, name: &str, work: impl FnOnce()) {
        println!("--- {name}");
        let start = Instant::now();
        let failure = catch_unwind(AssertUnwindSafe(work)).err().map(|panic| text(panic.as_ref()));
        let took = start.elapsed();
        let verdict = if failure.is_some() { "FAILED" } else { "ok" };
        println!("{verdict}  {name}  {:.1} s", took.as_secs_f64());
        self.cases.push(Case { name: name.to_owned(), took, failure });
    }

    /// Writes the report and ends the process.
    pub fn finish(&self) -> ! {
        let path = repository().join("target/e2e.xml");
        if let Err(error) = std::fs::write(&path, self.junit()) {
            eprintln!("cannot write {}: {error}", path.display());
        }
        let failed = self.cases.iter().filter(|case| case.failure.is_some()).count();
        for case in &self.cases {
            if let Some(failure) = &case.failure {
                eprintln!("\n{} failed:\n{failure}", case.name);
            }
        }
        println!("{} passed, {failed} failed", self.cases.len() - failed);
        std::process::exit(i32::from(failed > 0));
    }

    fn junit(&self) -> String {
        let failed = self.cases.iter().filter(|case| case.failure.is_some()).count();
        let seconds: f64 = self.cases.iter().map(|case| case.took.as_secs_f64()).sum();
        let mut text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"e2e\" tests=\"{}\" failures=\"{failed}\" \
             time=\"{seconds:.3}\">\n",
            self.cases.len()
        );
        for case in &self.cases {
            let (name, time) = (escape(&case.name), case.took.as_secs_f64());
            text += &format!("  <testcase classname=\"e2e\" name=\"{name}\" time=\"{time:.3}\">");
            if let Some(failure) = &case.failure {
                text += &format!("<failure>{}</failure>", escape(failure));
            }
            text += "</testcase>\n";
        }
        text + "</testsuite>\n"
    }
}

fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}
