//! `watch`: the configuration as it is, and each change as it comes.

use std::{fmt::Write as _, time::Duration};

use tokio::time::{sleep, timeout};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;
use trunkline_proto::{
    admin::v1::{
        WatchResourcesRequest, WatchResourcesResponse, watched_name::Name, watched_resource::Resource,
    },
    types::v1::Version,
};

use crate::{
    args::{ListingFormat, WatchArgs},
    client::ControlPlane,
    failure::Failure,
    json,
    signal::Signals,
    terminal,
};

/// Before asking again, when the control plane has gone.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// A message comes at least every 30 s; after twice that the stream is dead.
const SILENCE_MAX: Duration = Duration::from_secs(60);

pub(crate) async fn run(args: WatchArgs) -> Result<(), Failure> {
    let control_plane = ControlPlane::of(&args.connection)?;
    let mut signals = Signals::new()?;
    tokio::select! {
        biased; // Somebody who has seen enough is not kept waiting.
        () = signals.recv() => Ok(()),
        result = follow(&control_plane, args.output) => result,
    }
}

/// Returns only with a failure that waiting does not mend.
async fn follow(control_plane: &ControlPlane, output: ListingFormat) -> Result<(), Failure> {
    let mut position = Position::default();
    let mut had_any = false;
    loop {
        let ended = match open(control_plane, &position).await {
            Ok(mut stream) => {
                had_any = true;
                print_all(&mut stream, &mut position, output).await?
            }
            Err(status) => status,
        };
        if is_compacted(&ended) {
            terminal::remark("what came in between is not kept any more; all resources follow");
            position = Position::default();
        } else if had_any && may_pass(&ended) {
            terminal::remark(&format!("{}; asking again", control_plane.explain(&ended)));
            sleep(AGAIN_AFTER).await;
        } else {
            return Err(control_plane.explain(&ended));
        }
    }
}

async fn open(
    control_plane: &ControlPlane,
    position: &Position,
) -> Result<Streaming<WatchResourcesResponse>, Status> {
    let request = WatchResourcesRequest { after: position.complete.clone() };
    control_plane.try_call(request, async |admin, request| admin.watch_resources(request).await).await
}

/// Prints until the stream ends, and tells how it did.
async fn print_all(
    stream: &mut Streaming<WatchResourcesResponse>,
    position: &mut Position,
    output: ListingFormat,
) -> Result<Status, Failure> {
    loop {
        let message = match timeout(SILENCE_MAX, stream.message()).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => return Ok(Status::unavailable("the control plane ended the stream")),
            Ok(Err(status)) => return Ok(status),
            Err(_) => return Ok(Status::unavailable(format!("nothing came for {SILENCE_MAX:?}"))),
        };
        let text = match output {
            ListingFormat::Table => lines(&message),
            ListingFormat::Json => json::line("trunkline.admin.v1.WatchResourcesResponse", &message)?,
        };
        terminal::print(&text)?;
        position.took(&message);
    }
}

/// Up to where everything was seen.
#[derive(Debug, Default)]
struct Position {
    /// `None`: nothing whole was seen; the first listing comes (again).
    complete: Option<Version>,
}

impl Position {
    /// In the middle of a revision there is nothing to go on from: it comes again, whole.
    fn took(&mut self, message: &WatchResourcesResponse) {
        if !message.more {
            self.complete.clone_from(&message.version);
        }
    }
}

fn is_compacted(status: &Status) -> bool {
    let reason = status.get_error_details().error_info().map(|info| info.reason.clone());
    status.code() == Code::OutOfRange && reason.as_deref() == Some("REVISION_COMPACTED")
}

/// The control plane restarts, or the network is away.
fn may_pass(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::Unknown
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
    )
}

/// One line per resource. A sign of life has none.
fn lines(message: &WatchResourcesResponse) -> String {
    let revision = message.version.as_ref().map_or(0, |version| version.revision);
    let verb = if message.initial { "has" } else { "sets" };
    let mut text = String::new();
    let mut line = |verb: &str, (kind, name): (&str, &str)| {
        // Writing to a String can't fail.
        writeln!(text, "{revision}  {verb:<7}  {kind:<13}  {name}").ok();
    };
    for upsert in &message.upserts {
        line(
            verb,
            match &upsert.resource {
                Some(Resource::Provider(one)) => ("provider", one.name.as_str()),
                Some(Resource::VirtualModel(one)) => ("virtual-model", one.name.as_str()),
                Some(Resource::ApiKey(one)) => ("api-key", one.name.as_str()),
                Some(Resource::PriceEntry(one)) => ("price-entry", one.name.as_str()),
                Some(Resource::Budget(one)) => ("budget", one.name.as_str()),
                // Of a newer control plane.
                None => ("unknown", "-"),
            },
        );
    }
    for removal in &message.removals {
        line(
            "removes",
            match &removal.name {
                Some(Name::Provider(name)) => ("provider", name.as_str()),
                Some(Name::VirtualModel(name)) => ("virtual-model", name.as_str()),
                Some(Name::ApiKey(name)) => ("api-key", name.as_str()),
                Some(Name::PriceEntry(name)) => ("price-entry", name.as_str()),
                Some(Name::Budget(name)) => ("budget", name.as_str()),
                None => ("unknown", "-"),
            },
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;
    use trunkline_proto::{
        admin::v1::{WatchedName, WatchedResource},
        types::v1::Provider,
    };

    use super::*;

    fn message(revision: u64, more: bool) -> WatchResourcesResponse {
        let provider = Provider { name: "swift".to_owned(), ..Provider::default() };
        WatchResourcesResponse {
            version: Some(Version { epoch: "e".to_owned(), revision }),
            upserts: vec![WatchedResource { resource: Some(Resource::Provider(provider)) }],
            removals: vec![WatchedName { name: Some(Name::VirtualModel("chat".to_owned())) }],
            more,
            initial: false,
        }
    }

    #[test]
    fn each_change_is_a_line() {
        assert_eq!(
            lines(&message(8, false)),
            "8  sets     provider       swift\n8  removes  virtual-model  chat\n"
        );
        let initial = WatchResourcesResponse { initial: true, removals: Vec::new(), ..message(7, false) };
        assert_eq!(lines(&initial), "7  has      provider       swift\n");
        assert_eq!(lines(&WatchResourcesResponse::default()), "");
    }

    #[test]
    fn position_is_after_whole_revisions_only() {
        let mut position = Position::default();
        position.took(&message(7, true));
        assert_eq!(position.complete, None);
        position.took(&message(7, false));
        position.took(&message(8, true));
        assert_eq!(position.complete.map(|version| version.revision), Some(7));
    }

    #[test]
    fn compaction_begins_anew_and_a_refusal_ends() {
        let details = ErrorDetails::with_error_info("REVISION_COMPACTED", "trunkline", HashMap::new());
        assert!(is_compacted(&Status::with_error_details(Code::OutOfRange, "gone", details)));
        assert!(!is_compacted(&Status::out_of_range("else")));
        assert!(may_pass(&Status::unavailable("restart")));
        for code in
            [Code::Unauthenticated, Code::PermissionDenied, Code::Unimplemented, Code::InvalidArgument]
        {
            assert!(!may_pass(&Status::new(code, "")), "{code:?}");
        }
    }
}
