//! A real stack of Debian's own programs beside the odd ones, watched for wrong states.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, thread};

use mendd::api::view::StatusView;

use crate::harness::{Setup, find, is_full};
use crate::proc;

/// What the stack consists of on this machine.
struct Stack {
    text: String,
    /// Programs that must be RUNNING all the time.
    steady: Vec<&'static str>,
}

impl Stack {
    fn add(&mut self, name: &'static str, table: &str) {
        self.text.push_str(&format!("[program.{name}]\nstart_period = '500ms'\n{table}\n"));
        self.steady.push(name);
    }
}

/// Finds a program where Debian puts it, also off an ordinary user's PATH.
fn installed(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/bin"].map(PathBuf::from))
        // A version manager's wrapper of a name is not the program of Debian.
        .filter(|dir| !dir.ends_with("shims"))
        .map(|dir| dir.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        proc::skip(&format!("`{name}` is not installed and stays out of the stack"));
    }
    found
}

/// PostgreSQL's programs are under a directory with the version's number.
fn postgres() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|v| v.path().join("bin")).find(|bin| bin.join("initdb").is_file());
    if found.is_none() {
        proc::skip("PostgreSQL is not installed and stays out of the stack");
    }
    found
}

/// A port that nothing listened on a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

fn build(dir: &Path) -> Stack {
    let mut stack = Stack { text: String::new(), steady: Vec::new() };
    let at = dir.display();
    if let Some(redis) = installed("redis-server") {
        stack.add(
            "redis",
            &format!(
                "command = ['{}', '--port', '0', '--unixsocket', '{at}/redis.sock', '--dir', '{at}', \
                 '--save', '']",
                redis.display()
            ),
        );
    }
    if let Some(bin) = postgres() {
        let bin = bin.display();
        // PostgreSQL refuses to run as root.
        let user = if proc::is_root() { "user = 'postgres'" } else { "" };
        let data = format!("{at}/pg");
        fs::create_dir(&data).expect("a directory for the database");
        if proc::is_root() {
            let postgres = nix::unistd::User::from_name("postgres").ok().flatten();
            let postgres = postgres.expect("Debian's package makes this user");
            nix::unistd::chown(Path::new(&data), Some(postgres.uid), Some(postgres.gid))
                .expect("root may give a directory away");
        }
        stack.add(
            "postgres",
            &format!(
                "shell = true\n{user}\ndirectory = '/'\nstop = {{ signal = 'INT', grace = '30s' }}\n\
                 command = '[ -e {data}/db/PG_VERSION ] || {bin}/initdb -D \
                 {data}/db --no-sync || exit; exec {bin}/postgres -D {data}/db -c \
                 listen_addresses= -k {data}'"
            ),
        );
    }
    if let Some(nginx) = installed("nginx") {
        let config = format!(
            "daemon off;\npid {at}/nginx.pid;\nerror_log /dev/stderr;\nevents {{}}\n\
             http {{ access_log /dev/stdout;\n\
             client_body_temp_path {at}/n1; proxy_temp_path {at}/n2; fastcgi_temp_path {at}/n3;\n\
             uwsgi_temp_path {at}/n4; scgi_temp_path {at}/n5;\n\
             server {{ listen unix:{at}/nginx.sock; return 204; }} }}\n"
        );
        fs::write(dir.join("nginx.conf"), config).expect("a configuration of nginx");
        stack.add(
            "nginx",
            &format!(
                "command = ['{}', '-p', '{at}', '-e', '/dev/stderr', '-c', '{at}/nginx.conf']\n\
                 stop = {{ signal = 'QUIT' }}",
                nginx.display()
            ),
        );
    }
    if let Some(python) = installed("python3") {
        let (python, port) = (python.display(), free_port());
        stack.add(
            "files",
            &format!("command = ['{python}', '-m', 'http.server', '{port}', '--bind', '127.0.0.1']\ndirectory = '{at}/web'"),
        );
        fs::create_dir(dir.join("web")).expect("a directory to serve");
    }
    stack
}

const ODD: &str = "
[program.forker]
command = ['{child}', 'grandchild', '{dir}/grandchild']
stop = { grace = '500ms' }
[program.deaf]
command = ['{child}', 'deaf']
stop = { grace = '500ms' }
[program.crashes]
command = ['{child}', 'exit', '1']
[program.absent]
command = ['/no/such/program']
";

/// Says what is wrong with a status, if anything is.
fn wrong(status: &StatusView, steady: &[&str], pids: &[(String, Option<u32>)]) -> Option<String> {
    for name in steady {
        let process = match find(status, name) {
            Ok(process) => process,
            Err(error) => return Some(error),
        };
        let same = pids.iter().any(|(n, pid)| n == name && *pid == process.pid);
        if process.state != "RUNNING" || !same || !process.pid.is_some_and(proc::is_alive) {
            return Some(format!("{process:#?}"));
        }
    }
    let odd = |name| find(status, name).map_or_else(|error| error, |p| p.state.clone());
    let crashes = odd("crashes");
    if !["BACKOFF", "STARTING"].contains(&crashes.as_str()) {
        return Some(format!("`crashes` is {crashes}"));
    }
    let absent = odd("absent");
    (absent != "FATAL").then(|| format!("`absent` is {absent}"))
}

#[test]
fn a_real_stack_runs_without_a_wrong_state_and_leaves_nothing_behind() {
    let setup = Setup::new("");
    let mut stack = build(setup.dir());
    stack.text.push_str(ODD);
    stack.steady.extend(["forker", "deaf"]);
    if let Some(node) = installed("node") {
        let script = "process.stdout.write('n'.repeat(300000)); process.exitCode = 0";
        stack.text.push_str(&format!(
            "[program.node]\ncommand = ['{}', '-e', \"{script}\"]\nrestart = 'never'\nstart_period = 0\n",
            node.display()
        ));
    }
    if proc::is_root() {
        // The database's own user must reach its directory.
        let open = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
        fs::set_permissions(setup.dir(), open).expect("our own directory");
    }
    let with_node = stack.text.contains("[program.node]");
    let daemon = setup.programs(&stack.text).start();
    for name in &stack.steady {
        daemon.pid(name);
    }
    daemon.wait_state("absent", "FATAL");
    if with_node {
        let node = daemon.wait_state("node", "EXITED");
        assert_eq!(node.exit.and_then(|exit| exit.code), Some(0));
        crate::harness::wait_for("300,000 bytes of node", || {
            let bytes = daemon.log_bytes("node", "stdout").len();
            if bytes == 300_000 { Ok(()) } else { Err(format!("{bytes} bytes")) }
        });
    }
    if stack.steady.contains(&"postgres") {
        daemon.wait_log("postgres", "ready to accept connections");
    }
    let status = daemon.status();
    let pids: Vec<_> = status.programs.iter().map(|p| (p.name.clone(), p.pid)).collect();
    let end = Instant::now() + Duration::from_secs(if is_full() { 600 } else { 5 });
    while Instant::now() < end {
        if let Some(wrong) = wrong(&daemon.status(), &stack.steady, &pids) {
            panic!("a wrong state: {wrong}");
        }
        thread::sleep(Duration::from_millis(250));
    }
    daemon.ctl_ok(&["stop", "forker"]);
    let grandchild = fs::read_to_string(daemon.file("grandchild")).expect("its pid");
    assert!(!proc::is_alive(grandchild.trim().parse().expect("a pid")));
    assert_eq!(daemon.stop(), 0);
}
