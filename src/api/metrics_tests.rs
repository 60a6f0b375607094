//! The page of `/metrics`, over a real socket.

use super::bench::Bench;

fn page(bench: &Bench) -> String {
    let reply = bench.call("GET", "/metrics", "");
    assert_eq!(reply.status, 200, "{reply:?}");
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(reply.head.contains(kind), "{reply:?}");
    reply.body
}

#[test]
fn processes_checks_and_counts_are_on_the_page() {
    let page = page(&Bench::start());
    let web = r#"process="web:0",program="web",group="site""#;
    let expected = [
        r#"mend_build_info{version="1.2.3"} 1"#.to_owned(),
        r#"mend_mode{mend_mode="normal"} 1"#.to_owned(),
        r#"mend_mode{mend_mode="emergency"} 0"#.to_owned(),
        "mend_daemon_warnings 1".to_owned(),
        format!("mend_process_up{{{web}}} 1"),
        format!("mend_process_restarts_total{{{web}}} 1"),
        format!("mend_process_last_exit_code{{{web}}} 3"),
        format!("mend_process_start_time_seconds{{{web}}} 1795434660.12"),
        format!("mend_process_breaker_open{{{web}}} 0"),
        format!(r#"mend_process_state{{{web},mend_process_state="RUNNING"}} 1"#),
        format!(r#"mend_process_state{{{web},mend_process_state="FATAL"}} 0"#),
        format!(r#"mend_process_health{{{web},mend_process_health="up"}} 1"#),
        r#"mend_check_verdict{target="web:0",check="port",mend_check_verdict="pass"} 1"#.to_owned(),
        r#"mend_check_down{target="web:0",check="port"} 0"#.to_owned(),
        r#"mend_check_latency_seconds{target="web:0",check="port"} 0.005"#.to_owned(),
        r#"mend_check_runs_total{verdict="pass"} 40"#.to_owned(),
        r#"mend_check_runs_total{verdict="unknown"} 0"#.to_owned(),
        r#"mend_remedies_total{remedy="restart",result="verified"} 3"#.to_owned(),
        "mend_incidents_total 7".to_owned(),
        "mend_incidents_open 1".to_owned(),
        "mend_capture_written_bytes_total 4096".to_owned(),
        "mend_capture_dropped_bytes_total 512".to_owned(),
        "mend_history_lost_rows_total 5".to_owned(),
    ];
    for line in expected {
        assert!(page.lines().any(|it| it == line), "no `{line}` in\n{page}");
    }
    // What it does not have is left out.
    assert!(!page.contains("mend_process_ready{") && !page.contains("backoff_until_seconds{"));
    assert!(page.ends_with("\n# EOF\n"));
}

#[test]
fn it_takes_no_parameters() {
    assert_eq!(Bench::start().call("GET", "/metrics?name=web", "").status, 400);
}
