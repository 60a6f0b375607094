//! Redis, PostgreSQL and nginx as programs of Mend, each with a check of its own kind.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use crate::harness::{Daemon, Setup, wait_for};
use crate::healing::PACE;
use crate::readiness::free_port;
use crate::stack::{installed, open_to_all, postgres, postgres_home};

/// A service that is about to be started.
pub(crate) struct Service {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    pub(crate) setup: Setup,
    /// Its table in the configuration, without a check.
    pub(crate) program: String,
    /// What its check asks.
    pub(crate) asks: String,
}

impl Service {
    /// Starts it with a check that heals like this, and waits until it is well.
    #[track_caller]
    pub(crate) fn start(self, heal: &str) -> (Daemon, u16) {
        let text = format!("{}{}", self.program, self.check(heal));
        let name = self.name;
        (super::well(self.setup.programs(&text), &[name]), self.port)
    }

    pub(crate) fn check(&self, heal: &str) -> String {
        let Self { name, asks, .. } = self;
        format!("[[program.{name}.check]]\nname = 'answers'\n{asks}\n{PACE}heal = {heal}\n")
    }
}

fn program(name: &str, lines: &str) -> String {
    format!(
        "[program.{name}]\nstart_period = '200ms'\nbackoff = {{ initial = '200ms', jitter = 0.0 }}\n\
         {lines}\n"
    )
}

/// `more` are arguments of the server, `lines` keys of its table.
pub(crate) fn redis(more: &str, lines: &str) -> Option<Service> {
    let redis = installed("redis-server")?;
    let (port, setup) = (free_port(), Setup::new(""));
    let command = format!(
        "command = \"{} --bind 127.0.0.1 --port {port} --save '' --enable-debug-command yes {more}\"\n\
         stop = {{ grace = '500ms' }}\n{lines}",
        redis.display()
    );
    let lines =
        if lines.contains("directory") { command } else { command + "\ndirectory = '{dir}'" };
    let asks = format!("redis = '127.0.0.1:{port}'");
    Some(Service { name: "cache", port, setup, program: program("cache", &lines), asks })
}

/// `settings` are lines of its configuration, in `{dir}/pg.conf`.
pub(crate) fn database(settings: &str) -> Option<Service> {
    let bin = postgres()?;
    let (port, setup) = (free_port(), Setup::new(""));
    open_to_all(setup.dir());
    let (bin, data) = (bin.display(), setup.dir().join("pg").display().to_string());
    let user = postgres_home(&data);
    let conf = setup.dir().join("pg.conf");
    let common = format!(
        "listen_addresses = '127.0.0.1'\nport = {port}\nfsync = off\nmax_wal_senders = 0\n\
         superuser_reserved_connections = 0\nunix_socket_directories = ''\n"
    );
    fs::write(&conf, format!("{common}{settings}")).expect("a configuration of PostgreSQL");
    let conf = conf.display();
    let lines = format!(
        "shell = true\n{user}\ndirectory = '/'\nstart_timeout = '2m'\n\
         stop = {{ signal = 'INT', grace = '5s' }}\nready = {{ tcp = '127.0.0.1:{port}' }}\n\
         command = '[ -e {data}/db/PG_VERSION ] || {bin}/initdb -U postgres -A trust --no-sync \
         -D {data}/db || exit; exec {bin}/postgres -D {data}/db -c hba_file={data}/db/pg_hba.conf \
         -c config_file={conf}'"
    );
    let asks = format!("postgres = '127.0.0.1:{port}'");
    Some(Service { name: "db", port, setup, program: program("db", &lines), asks })
}

/// What is asked of nginx is answered with 204.
pub(crate) fn nginx(events: &str, lines: &str) -> Option<Service> {
    let (port, setup) = (free_port(), Setup::new(""));
    let server = format!("server {{ listen 127.0.0.1:{port}; {lines} }}");
    write_nginx(setup.dir(), events, &server);
    let asks = format!("http = 'http://127.0.0.1:{port}/'");
    nginx_of(setup, port, asks)
}

/// As [`nginx`], on a configuration that is written already.
pub(crate) fn nginx_of(setup: Setup, port: u16, asks: String) -> Option<Service> {
    let nginx = installed("nginx")?;
    let lines = format!(
        "command = ['{}', '-p', '{{dir}}', '-e', '/dev/stderr', '-c', '{{dir}}/nginx.conf']\n\
         reload_signal = 'HUP'\nstop = {{ signal = 'TERM', grace = '500ms' }}",
        nginx.display()
    );
    Some(Service { name: "web", port, setup, program: program("web", &lines), asks })
}

pub(crate) fn write_nginx(dir: &Path, events: &str, server: &str) {
    let at = dir.display();
    let config = format!(
        "daemon off;\nworker_processes 1;\npid {at}/nginx.pid;\nerror_log /dev/stderr;\n\
         events {{ {events} }}\nhttp {{ access_log off;\n\
         client_body_temp_path {at}/n1; proxy_temp_path {at}/n2; fastcgi_temp_path {at}/n3;\n\
         uwsgi_temp_path {at}/n4; scgi_temp_path {at}/n5;\n{server} }}\n"
    );
    fs::write(dir.join("nginx.conf"), config).expect("a configuration of nginx");
}

/// Opens connections, each with a greeting, until the server takes no more, and keeps them.
#[track_caller]
pub(crate) fn occupy(port: u16, greeting: &[u8], is_refusal: fn(&[u8]) -> bool) -> Vec<TcpStream> {
    let mut held = Vec::new();
    wait_for("the server to be full", || {
        let refused = |error: std::io::Error| error.to_string();
        let mut connection = TcpStream::connect(("127.0.0.1", port)).map_err(refused)?;
        connection.set_read_timeout(Some(Duration::from_millis(300))).map_err(refused)?;
        connection.write_all(greeting).map_err(refused)?;
        let mut answer = [0; 512];
        match connection.read(&mut answer) {
            Ok(length) if is_refusal(&answer[..length]) => return Ok(()),
            Ok(_) | Err(_) => held.push(connection),
        }
        assert!(held.len() < 100, "the server takes any number of connections");
        Err(format!("{} connections", held.len()))
    });
    held
}
