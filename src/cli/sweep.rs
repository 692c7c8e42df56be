//! `larder sweep`

use std::process::ExitCode;

use serde_json::json;

use super::{
    content::{self, Place, Question},
    events,
};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Place,
}

pub(super) fn sweep(arguments: &Arguments) -> ExitCode {
    let question = Question::change("/api/v1/sweep", &json!({}));
    let swept = content::ask(&arguments.place, question, async |answer| {
        events::follow(answer, |_| Ok(())).await
    });
    match swept {
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
