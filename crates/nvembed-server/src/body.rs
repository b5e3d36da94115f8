//! Reading a body within its limits.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, header};

use crate::app::App;
use crate::fields::Fields;
use crate::problem::{Problem, What};

/// How much of a body that is too large is read and thrown away, so that a client that writes before it reads gets the answer.
const THROWN_AWAY: usize = 64 << 20;

/// The fields of a request's body, with the request's headers.
///
/// # Errors
/// When the body is too large, too slow, or no JSON object.
pub(crate) async fn fields(app: &App, request: Request) -> Result<(HeaderMap, Fields), Problem> {
    let (parts, body) = request.into_parts();
    if !is_json(&parts.headers) {
        let message = "the body must be JSON: send `Content-Type: application/json`";
        return Err(Problem::new(What::NotJson, message));
    }
    let (most, time) = (app.options.max_body, app.options.body_timeout);
    let bytes = tokio::time::timeout(time, read(body, most, &parts.headers)).await;
    let bytes = bytes.map_err(|_| too_slow(time))??;
    Ok((parts.headers, Fields::parse(&bytes)?))
}

/// A page of another origin can send a body of other types to a server on this machine without asking; JSON it cannot.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return true };
    let kind = kind.to_str().unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json") || essence.to_ascii_lowercase().ends_with("+json")
}

async fn read(body: Body, most: usize, headers: &HeaderMap) -> Result<Vec<u8>, Problem> {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|declared| declared > most) && headers.contains_key(header::EXPECT) {
        // The client asked before it sent anything.
        return Err(too_large(most));
    }
    let mut bytes = Vec::with_capacity(declared.unwrap_or(0).min(most));
    let (mut stream, mut thrown_away) = (body.into_data_stream(), 0);
    loop {
        let chunk = std::future::poll_fn(|context| {
            use axum::body::HttpBody as _;
            let frame = std::pin::Pin::new(&mut stream);
            frame.poll_frame(context)
        });
        let Some(frame) = chunk.await else { break };
        let broken = |_| Problem::new(What::Invalid, "the body ended early or is not as its headers say");
        let Ok(chunk) = frame.map_err(broken)?.into_data() else { continue };
        if thrown_away > 0 || bytes.len() + chunk.len() > most {
            thrown_away += chunk.len();
            bytes = Vec::new();
            if thrown_away > THROWN_AWAY {
                break;
            }
        } else {
            bytes.extend_from_slice(&chunk);
        }
    }
    if thrown_away > 0 { Err(too_large(most)) } else { Ok(bytes) }
}

fn too_large(most: usize) -> Problem {
    let message = format!("the body has more than {most} bytes, the limit; send fewer texts in a request");
    Problem::new(What::TooLarge, message)
}

fn too_slow(time: Duration) -> Problem {
    let message = format!("the body did not arrive within {:.0} s", time.as_secs_f64());
    Problem::new(What::SlowBody, message)
}
