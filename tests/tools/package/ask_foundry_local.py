"""Registers a model with Foundry Local's SDK, asks it, and prints as JSON what it lists and answers.

python ask_foundry_local.py FOLDER NAME:VERSION TEXT, in an environment with foundry-local-sdk.
"""

import json
import sys

import foundry_local_sdk as sdk  # type: ignore[import-not-found]


def main() -> None:
    folder, name, text = sys.argv[1:]
    sdk.FoundryLocalManager.initialize(
        sdk.Configuration(
            app_name="tunepress",
            app_data_dir="data",
            logs_dir="logs",
            model_cache_dir="cache",
            disable_nonessential_telemetry=True,
        )
    )
    catalog = sdk.FoundryLocalManager.instance.get_catalog(sdk.CatalogType.LOCAL)
    with sdk.ModelInfoBuilder() as metadata:
        metadata.set_string_property("task", "chat-completion")
        model = catalog.register_model(model_path=folder, model_id=name, metadata=metadata)
    listed = [each.id for each in catalog.list_models()]
    model.load()
    with sdk.ChatSession(model) as session, sdk.Request() as request:
        session.set_options(sdk.RequestOptions(search=sdk.SearchOptions(temperature=0.0, max_output_tokens=12)))
        request.add_item(sdk.MessageItem.user(text))
        budget = session.preflight_request(request)
        with session.process_request(request) as response:
            answer = "".join(item.get_simple_text() for item in response if isinstance(item, sdk.MessageItem))
            print(json.dumps({"models": listed, "prompt_tokens": budget.prompt_tokens, "answer": answer}))
    model.unload()


if __name__ == "__main__":
    main()
