//! A real stack of Debian's own programs beside the odd ones, watched for wrong states.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, thread};

use mendd::api::view::StatusView;

use crate::harness::{Setup, find, is_full};
use crate::proc;
use crate::readiness::free_port;

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
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
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
pub(crate) fn postgres() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|v| v.path().join("bin")).find(|bin| bin.join("initdb").is_file());
    if found.is_none() {
        proc::skip("PostgreSQL is not installed and stays out of the stack");
    }
    found
}

/// Makes PostgreSQL's directory for the user that it runs as; returns that key of its program.
pub(crate) fn postgres_home(data: &str) -> &'static str {
    fs::create_dir(data).expect("a directory for the database");
    if !proc::is_root() {
        return "";
    }
    // PostgreSQL refuses to run as root.
    let postgres = nix::unistd::User::from_name("postgres").ok().flatten();
    let postgres = postgres.expect("Debian's package makes this user");
    nix::unistd::chown(Path::new(data), Some(postgres.uid), Some(postgres.gid))
        .expect("root may give a directory away");
    "user = 'postgres'"
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
        let data = format!("{at}/pg");
        let user = postgres_home(&data);
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
    open_to_all(setup.dir());
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

/// Lets the database's own user reach its directory.
pub(crate) fn open_to_all(dir: &Path) {
    if proc::is_root() {
        let open = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
        fs::set_permissions(dir, open).expect("our own directory");
    }
}

#[test]
fn a_real_chain_starts_link_by_link_when_the_one_before_is_ready() {
    let tools = ["redis-server", "redis-cli", "nginx", "curl"].map(installed);
    let (Some(bin), [Some(redis), Some(redis_cli), Some(nginx), Some(curl)]) = (postgres(), tools)
    else {
        return proc::skip("the chain needs PostgreSQL, Redis, nginx and curl");
    };
    let setup = Setup::new("");
    open_to_all(setup.dir());
    let (dir, at) = (setup.dir().to_owned(), setup.dir().display().to_string());
    let data = format!("{at}/pg");
    let user = postgres_home(&data);
    let (bin, redis, nginx) = (bin.display(), redis.display(), nginx.display());
    let (redis_cli, curl) = (redis_cli.display(), curl.display());
    let (redis_port, web_port) = (free_port(), free_port());
    let config = format!(
        "daemon off;\npid {at}/nginx.pid;\nerror_log /dev/stderr;\nevents {{}}\n\
         http {{ access_log off;\nserver {{ listen 127.0.0.1:{web_port}; return 204; }} }}\n"
    );
    fs::write(dir.join("nginx.conf"), config).expect("a configuration of nginx");
    // Each link looks whether the one before it is there, and tells on it if not.
    let daemon = setup
        .programs(&format!(
            "[program.worker]\nshell = true\nrequires = ['web']\nready = {{ log = '^working$' }}\n\
             command = '{curl} -fs http://127.0.0.1:{web_port}/ || echo web >> {at}/early; \
             echo start >> {at}/worker.starts; echo working; exec sleep 1000'\n\
             [program.web]\nshell = true\nrequires = ['redis']\n\
             ready = {{ http = 'http://127.0.0.1:{web_port}/', status = 204 }}\n\
             command = '{redis_cli} -p {redis_port} ping | grep -q PONG || echo redis >> {at}/early; \
             exec {nginx} -p {at} -e /dev/stderr -c {at}/nginx.conf'\n\
             [program.redis]\nshell = true\nrequires = ['postgres']\n\
             ready = {{ tcp = '127.0.0.1:{redis_port}' }}\n\
             command = '{bin}/pg_isready -q -h {data} || echo postgres >> {at}/early; \
             exec {redis} --port {redis_port} --bind 127.0.0.1 --dir {at} --save \"\"'\n\
             [program.postgres]\nshell = true\n{user}\ndirectory = '/'\n\
             stop = {{ signal = 'INT', grace = '30s' }}\nstart_timeout = '5m'\n\
             ready = {{ exec = ['{bin}/pg_isready', '-q', '-h', '{data}'] }}\n\
             command = '[ -e {data}/db/PG_VERSION ] || {bin}/initdb -D {data}/db --no-sync || exit; \
             exec {bin}/postgres -D {data}/db -c listen_addresses= -k {data}'\n"
        ))
        .start();
    let waits = daemon.process("worker");
    assert_eq!((waits.state.as_str(), waits.waiting_for), ("STOPPED", vec!["web".to_owned()]));
    daemon.ctl_ok(&["wait", "all", "--for", "ready"]);
    let early = fs::read_to_string(dir.join("early")).unwrap_or_default();
    assert_eq!(early, "", "started before these were ready");
    let starts = fs::read_to_string(dir.join("worker.starts")).expect("it has started");
    assert_eq!(starts, "start\n");
    assert_eq!(daemon.stop(), 0);
}
