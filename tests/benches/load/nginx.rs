//! nginx as a plain proxy: the least that a program in between costs. Optional.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use crate::process::{Placement, Process, answers};

/// It starts in a fraction of that.
const STARTS_WITHIN: Duration = Duration::from_secs(5);
const ASK_EVERY: Duration = Duration::from_millis(10);

/// Whether it can be measured here.
pub(crate) fn is_installed() -> bool {
    answers("nginx", "-v")
}

/// Starts one worker. Returns the process, at the address for whole answers, and the
/// address for streams, which are passed on unbuffered.
pub(crate) fn start(
    placement: Placement,
    mock: SocketAddr,
    directory: &Path,
) -> anyhow::Result<(Process, SocketAddr)> {
    let (whole, stream) = free_addresses()?;
    let config = directory.join("nginx.conf");
    fs::write(&config, text(mock, whole, stream, directory))?;
    let mut command = placement.measured(Path::new("nginx"));
    command.arg("-e").arg(directory.join("error.log")).arg("-p").arg(directory).arg("-c").arg(&config);
    Ok((Process::at(command, whole)?, stream))
}

/// It can't be told to pick free ports itself.
fn free_addresses() -> anyhow::Result<(SocketAddr, SocketAddr)> {
    let bind = || std::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)));
    let (one, other) = (bind()?, bind()?);
    Ok((one.local_addr()?, other.local_addr()?))
}

fn text(mock: SocketAddr, whole: SocketAddr, stream: SocketAddr, directory: &Path) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {}/{kind};\n", directory.display()))
        .concat();
    let server = |address: SocketAddr, buffering: &str| {
        format!(
            "  server {{
    listen {address} backlog=1024;
    keepalive_requests 1000000000;
    location / {{
      proxy_pass http://mock;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_buffering {buffering};
    }}
  }}
"
        )
    };
    format!(
        "daemon off;
master_process off;
worker_processes 1;
pid {}/pid;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  tcp_nodelay on;
  client_body_buffer_size 64k;
{temporary}  upstream mock {{ server {mock}; keepalive 128; keepalive_requests 1000000000; }}
{}{}}}
",
        directory.display(),
        server(whole, "on"),
        server(stream, "off")
    )
}

/// Does `connect` until something listens.
pub(crate) async fn patiently<T>(connect: impl AsyncFn() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let until = tokio::time::Instant::now() + STARTS_WITHIN;
    loop {
        match connect().await {
            Err(error) if tokio::time::Instant::now() > until => return Err(error),
            Err(_) => tokio::time::sleep(ASK_EVERY).await,
            connected => return connected,
        }
    }
}
