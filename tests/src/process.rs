//! A process of the product: started from the executable beside the test's own, known
//! by its `listening` lines, killed when dropped, its log shown when the test fails.

use std::{
    collections::{HashMap, VecDeque},
    env,
    io::{BufRead as _, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use crate::patience::PATIENCE;

/// Lines of output kept per process; the newest tell why a test failed.
const LINES_MAX: usize = 400;

/// Between two looks at whether a process has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What the product's process said so far.
#[derive(Debug, Default)]
struct Output {
    lines: VecDeque<String>,
    /// Texts that may be in no line, and the lines they were in.
    canaries: Vec<String>,
    found: Vec<String>,
    listening: HashMap<String, String>,
    ended: bool,
}

type SharedOutput = Arc<(Mutex<Output>, Condvar)>;

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: SharedOutput,
}

impl Process {
    /// Starts one of the executables of this package, such as `tested-agent`.
    pub fn start(executable: &str, arguments: &[String], variables: &[(&str, &str)]) -> Self {
        Self::start_under(&[], executable, arguments, variables)
    }

    /// The same, started by another command, such as `nsenter` with its arguments, that
    /// becomes the executable.
    pub fn start_under(
        wrapper: &[String],
        executable: &str,
        arguments: &[String],
        variables: &[(&str, &str)],
    ) -> Self {
        let command = match wrapper {
            [] => Command::new(path(executable)),
            [program, rest @ ..] => {
                let mut command = Command::new(program);
                command.args(rest).arg(path(executable));
                command
            }
        };
        Self::spawn(command, executable, arguments, variables, &[])
    }

    /// One that remembers each line with one of these texts.
    pub fn watched(
        executable: &str,
        arguments: &[String],
        variables: &[(&str, &str)],
        canaries: &[&str],
    ) -> Self {
        Self::spawn(Command::new(path(executable)), executable, arguments, variables, canaries)
    }

    fn spawn(
        mut command: Command,
        executable: &str,
        arguments: &[String],
        variables: &[(&str, &str)],
        canaries: &[&str],
    ) -> Self {
        // Variables of the product from outside would be flags that no test wrote.
        for (name, _) in env::vars().filter(|(name, _)| name.starts_with("TRUNKLINE_")) {
            command.env_remove(name);
        }
        let mut child = command
            .args(arguments)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("start {executable}: {error}"));
        let output = SharedOutput::default();
        output.0.lock().canaries = canaries.iter().map(|text| (*text).to_owned()).collect();
        follow(child.stdout.take().unwrap(), Arc::clone(&output), true);
        follow(child.stderr.take().unwrap(), Arc::clone(&output), false);
        Self { name: executable.to_owned(), child, output }
    }

    /// The URL of a listener, as soon as it is announced.
    pub fn url(&self, role: &str) -> String {
        let (output, changed) = &*self.output;
        let mut output = output.lock();
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(url) = output.listening.get(role) {
                return url.clone();
            }
            let late = output.ended || changed.wait_until(&mut output, end).timed_out();
            if late && !output.listening.contains_key(role) {
                let said = joined(&output.lines);
                panic!("{} announced no listener {role}:\n{said}", self.name);
            }
        }
    }

    /// Whether a line with this text was printed so far.
    pub fn said(&self, text: &str) -> bool {
        self.output.0.lock().lines.iter().any(|line| line.contains(text))
    }

    /// Lines with a text that it was watched for.
    pub fn found(&self) -> Vec<String> {
        self.output.0.lock().found.clone()
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM and does not wait.
    pub fn terminate(&self) {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(status.unwrap().success(), "{} was not there any more", self.name);
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "{} did not end within {PATIENCE:?}", self.name);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Sends SIGKILL and waits.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What it printed last.
    pub fn log(&self) -> String {
        joined(&self.output.0.lock().lines)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if thread::panicking() {
            println!("---- {} {} said last:\n{}", self.name, self.child.id(), self.log());
        }
    }
}

fn joined(lines: &VecDeque<String>) -> String {
    lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
}

/// Reads lines on a thread of their own until the pipe closes.
fn follow(pipe: impl Read + Send + 'static, output: SharedOutput, is_stdout: bool) {
    thread::spawn(move || {
        let (output, changed) = &*output;
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut output = output.lock();
            let announced = line.strip_prefix("listening ").and_then(|rest| rest.trim().split_once(' '));
            if let Some((role, url)) = announced.filter(|_| is_stdout) {
                output.listening.insert(role.to_owned(), url.to_owned());
            }
            if output.canaries.iter().any(|text| line.contains(text.as_str())) {
                output.found.push(line.clone());
            }
            if output.lines.len() == LINES_MAX {
                output.lines.pop_front();
            }
            output.lines.push_back(line);
            changed.notify_all();
        }
        let mut output = output.lock();
        output.ended |= is_stdout;
        changed.notify_all();
    });
}

/// Cargo puts tests into `deps/` below the directory of executables.
pub(crate) fn path(executable: &str) -> PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| {
        let own = env::current_exe().unwrap();
        let parent = own.parent().unwrap();
        let above = if parent.ends_with("deps") { parent.parent().unwrap() } else { parent };
        above.to_owned()
    });
    let path = directory.join(executable);
    assert!(path.exists(), "{} is missing; `cargo test -p trunkline-tests` builds it", path.display());
    path
}
