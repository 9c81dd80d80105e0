//! Docker or Podman, driven by the command line that both share.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;
use tokio::sync::Semaphore;

use crate::failure::Failure;

/// Containers that start at a time. An engine that is asked for a whole network at once starts none of it in time.
const STARTS_AT_A_TIME: usize = 4;
/// Longest wait for a container to start, on a busy machine or one that reads the image for the first time.
const START_PATIENCE: Duration = Duration::from_secs(180);
/// Longest wait for an engine's answer. Stopping takes the grace of the containers on top.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time that a container gets to end after it was asked to; services drain for 10 s.
pub const STOP_GRACE_S: u64 = 15;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineName {
    Docker,
    Podman,
}

/// How the two differ where they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Docker,
    Podman,
}

/// An engine that answers.
#[derive(Clone, Debug)]
pub struct Engine {
    pub name: EngineName,
    dialect: Dialect,
    /// The engine runs without root: what a container writes belongs to its user.
    rootless: bool,
    starts: Arc<Semaphore>,
}

impl EngineName {
    const ALL: [Self; 2] = [Self::Docker, Self::Podman];

    pub fn program(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    Running,
    Ended {
        code: i64,
        out_of_memory: bool,
    },
    /// Somebody has removed it.
    Gone,
}

impl fmt::Display for ContainerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("is running"),
            Self::Ended { code, out_of_memory: true } => write!(f, "ended with code {code}, out of memory"),
            Self::Ended { code, .. } => write!(f, "ended with code {code}"),
            Self::Gone => f.write_str("was removed"),
        }
    }
}

impl Engine {
    /// The engine that was asked for, or the first that answers.
    pub async fn find(asked: Option<EngineName>) -> Result<Self, Failure> {
        let (engines, refusals) = Self::answering(asked).await;
        engines.into_iter().next().ok_or_else(|| {
            Failure::failed(format!("no container engine answers: {}", refusals.join("; "))).hint(
                "start Docker or Podman, see that you may use it, or run without `--on containers`: \
                 `--isolation process` gives each service a process of its own",
            )
        })
    }

    /// Every engine that answers, and why the others do not.
    pub async fn answering(asked: Option<EngineName>) -> (Vec<Self>, Vec<String>) {
        let names = EngineName::ALL.into_iter().filter(|name| asked.is_none_or(|asked| asked == *name));
        let (mut engines, mut refusals) = (Vec::new(), Vec::new());
        for name in names {
            match Self::ask(name).await {
                Ok(engine) => engines.push(engine),
                Err(error) => refusals.push(format!("{}: {}", name.program(), shell::chain(&error))),
            }
        }
        (engines, refusals)
    }

    async fn ask(name: EngineName) -> Result<Self> {
        let mut engine = Self {
            name,
            dialect: Dialect::Docker,
            rootless: false,
            starts: Arc::new(Semaphore::new(STARTS_AT_A_TIME)),
        };
        // A `docker` command may be Podman's stand-in.
        let version = engine.run(&["--version"]).await?;
        if version.to_lowercase().contains("podman") {
            engine.dialect = Dialect::Podman;
        }
        let answer = match engine.dialect {
            Dialect::Docker => {
                engine.run(&["version", "--format", "{{.Server.Version}}"]).await?;
                engine.run(&["info", "--format", "{{json .SecurityOptions}}"]).await?.contains("name=rootless")
            }
            Dialect::Podman => engine.run(&["info", "--format", "{{.Host.Security.Rootless}}"]).await?.trim() == "true",
        };
        engine.rootless = answer;
        Ok(engine)
    }

    /// How to run as a user whose files are those of whoever runs this program; root's containers take a user of
    /// their own.
    pub fn user(&self) -> User {
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        match (self.dialect, self.rootless) {
            (Dialect::Docker, true) => User { uid: 0, gid: 0, namespace: None, owner: None },
            (Dialect::Podman, true) => User { uid, gid, namespace: Some("keep-id"), owner: None },
            (_, false) if uid == 0 => User { uid: NOBODY, gid: NOBODY, namespace: None, owner: Some(NOBODY) },
            (_, false) => User { uid, gid, namespace: None, owner: None },
        }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.name.program());
        // An interrupt at the terminal is for whoever started the network.
        command.args(args).stdin(Stdio::null()).process_group(0).kill_on_drop(true);
        command
    }

    /// Runs one command of the engine to its end; what it printed.
    pub async fn run(&self, args: &[&str]) -> Result<String> {
        self.run_within(args, PATIENCE).await
    }

    /// Runs the command that starts a container, when its turn comes.
    pub async fn start(&self, args: &[&str]) -> Result<()> {
        let _turn = self.starts.acquire().await.context("wait for a turn to start a container")?;
        self.run_within(args, START_PATIENCE).await.map(drop)
    }

    async fn run_within(&self, args: &[&str], patience: Duration) -> Result<String> {
        let program = self.name.program();
        let output = tokio::time::timeout(patience, self.command(args).output())
            .await
            .with_context(|| format!("`{program} {}` has not ended in {} s", verb(args), patience.as_secs()))?
            .with_context(|| format!("start {program}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("`{program} {}`: {}", verb(args), said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Version that an image says it is of; nothing where there is no such image.
    pub async fn image_version(&self, image: &str) -> Result<String> {
        let format = "{{index .Config.Labels \"org.opencontainers.image.version\"}}";
        Ok(self.run(&["image", "inspect", "--format", format, image]).await?.trim().to_owned())
    }

    /// Host address of a published port.
    pub async fn published(&self, container: &str, port: u16) -> Result<SocketAddr> {
        let text = self.run(&["port", container, &format!("{port}/tcp")]).await?;
        let line = text.lines().next().unwrap_or_default().trim();
        line.parse().with_context(|| format!("`{line}` is no address of port {port} of {container}"))
    }

    pub async fn state(&self, container: &str) -> Result<ContainerState> {
        let format = "{{.State.Running}} {{.State.ExitCode}} {{.State.OOMKilled}}";
        match self.run(&["container", "inspect", "--format", format, container]).await {
            Ok(text) => parse_state(&text),
            Err(_) if self.containers(&format!("name=^{container}$")).await?.is_empty() => Ok(ContainerState::Gone),
            Err(error) => Err(error),
        }
    }

    pub async fn stop(&self, containers: &[String]) -> Result<()> {
        let grace = STOP_GRACE_S.to_string();
        let args = [&["stop", "--time", &grace], &strs(containers)[..]].concat();
        self.run_within(&args, PATIENCE + Duration::from_secs(STOP_GRACE_S)).await.map(drop)
    }

    /// Removes containers, running or not, and networks with this label. How many there were.
    pub async fn remove_labelled(&self, label: &str) -> Result<usize> {
        let filter = format!("label={label}");
        let containers = self.containers(&filter).await?;
        if !containers.is_empty() {
            self.run(&[&["rm", "--force", "--volumes"], &strs(&containers)[..]].concat()).await?;
        }
        let networks = words(&self.run(&["network", "ls", "--quiet", "--filter", &filter]).await?);
        if !networks.is_empty() {
            self.run(&[&["network", "rm"], &strs(&networks)[..]].concat()).await?;
        }
        Ok(containers.len())
    }

    /// IDs of containers, running or not.
    pub async fn containers(&self, filter: &str) -> Result<Vec<String>> {
        Ok(words(&self.run(&["ps", "--all", "--quiet", "--no-trunc", "--filter", filter]).await?))
    }
}

/// The user that the image names: nobody in particular.
const NOBODY: u32 = 65532;

/// Whom a container runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// How the engine maps users, where it has to be said.
    pub namespace: Option<&'static str>,
    /// To whom the files that a container may write must be given first.
    pub owner: Option<u32>,
}

/// The words of a command line that say what it does.
fn verb<'a>(args: &[&'a str]) -> String {
    args.iter().take_while(|word| !word.starts_with('-')).take(2).copied().collect::<Vec<&'a str>>().join(" ")
}

fn parse_state(text: &str) -> Result<ContainerState> {
    let words: Vec<&str> = text.split_whitespace().collect();
    ensure!(words.len() == 3, "the engine says `{}` of a container's state", text.trim());
    if words[0] == "true" {
        return Ok(ContainerState::Running);
    }
    let code = words[1].parse().context("read an exit code")?;
    Ok(ContainerState::Ended { code, out_of_memory: words[2] == "true" })
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn strs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// A folder as both engines' `--volume` takes it.
pub fn volume(source: &std::path::Path, target: &str, mode: &str) -> Result<String> {
    let source: PathBuf = std::path::absolute(source).context("find a folder")?;
    let text = source.to_str().context("a path is not text")?;
    ensure!(!text.contains(':'), "{text}: engines cannot mount a path with a `:`; give another `--data`");
    // `z`: where the host labels files (SELinux), containers may share this one.
    Ok(format!("{text}:{target}:{mode},z"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_container_is_read() {
        assert_eq!(parse_state("true 0 false\n").unwrap(), ContainerState::Running);
        let killed = parse_state("false 137 true\n").unwrap();
        assert_eq!(killed, ContainerState::Ended { code: 137, out_of_memory: true });
        assert_eq!(killed.to_string(), "ended with code 137, out of memory");
        assert!(parse_state("").is_err());
    }

    #[test]
    fn what_is_told_of_a_command_is_what_it_does_and_not_its_arguments() {
        assert_eq!(verb(&["network", "rm", "--force", "x"]), "network rm");
        assert_eq!(verb(&["run", "--detach", "image"]), "run");
    }

    #[test]
    fn a_path_that_cannot_be_mounted_is_refused() {
        assert!(volume(std::path::Path::new("/a:b"), "/x", "ro").is_err());
        assert_eq!(volume(std::path::Path::new("/a"), "/x", "ro").unwrap(), "/a:/x:ro,z");
    }
}
