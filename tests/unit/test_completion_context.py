"""What exactly the model saw, for every completion that is recorded with its content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from manent.adapters.inference.script import Script
from manent.adapters.inference.scripted import SCRIPTED_CARD, ScriptedEngine
from manent.domain.access import Principal
from manent.domain.errors import CompletionNotFound, ContentNotRecorded
from manent.domain.generation import Truncation
from manent.domain.messages import Message
from manent.domain.output_shape import OutputShape
from manent.domain.prompts import ExplainedPrompt
from manent.domain.usecases.completion_context import CompletionContext, PromptVerdict
from manent.domain.usecases.fork_session import ForkCommand
from tests.support.conversation import ANN, BOB, assistant, user
from tests.support.manent import World, ask, make_world
from tests.support.replays import AUDITOR, recorded, talk, world_of_two_models


async def shown(world: World, completion_id: str, principal: Principal = ANN) -> CompletionContext:
    """The context."""
    return await world.manent.replays.context.run(principal, completion_id)


async def test_the_prompt_is_what_the_engine_was_given() -> None:
    """Messages in their order, the text, the token ids, and a commitment that matches."""
    world = world_of_two_models()
    first, second = await talk(world, "one"), await talk(world, "two")
    context = await shown(world, second.completion_id)
    assert [message.text for message in context.messages] == ["one", "scripted 1", "two"]
    assert (context.verdict, context.changed, context.dropped) == (PromptVerdict.MATCHES, (), ())
    assert context.prompt is not None
    assert context.prompt.rendered == world.engine.requests[-1].prompt
    assert context.prompt.text.startswith("<user> one <end>")
    assert [message.text for message in (await shown(world, first.completion_id)).messages] == ["one"]


async def test_later_edits_do_not_change_what_was_seen() -> None:
    """The context is that of then, from the log."""
    world = world_of_two_models()
    first = await talk(world, "one")
    edit = ask(user("ONE"), assistant("scripted 1"), user("two"), session_id="s")
    await world.manent.complete_chat.start(edit).generated()
    context = await shown(world, first.completion_id)
    assert ([message.text for message in context.messages], context.verdict) == (["one"], PromptVerdict.MATCHES)


async def test_a_fork_shows_what_it_inherited() -> None:
    """The messages of a fork's completion are partly its parent's."""
    world = world_of_two_models()
    await talk(world, "one")
    await recorded(world).fork.run(ForkCommand(principal=ANN, session_id="s", fork_id="f"))
    generated = await talk(world, "two", session_id="f")
    context = await shown(world, generated.completion_id)
    assert [message.text for message in context.messages] == ["one", "scripted 1", "two"]
    assert context.verdict is PromptVerdict.MATCHES


async def test_dropped_messages_are_shown_apart() -> None:
    """Truncation left them out; the prompt is without them."""
    card = replace(SCRIPTED_CARD, context_length=20)
    world = make_world(ScriptedEngine(Script(pieces=("a", " b")), cards=(card,)))
    for text in ("one two three four", "five six seven", "eight"):
        command = ask(user(text), session_id="s", truncation=Truncation.AUTO)
        generated = await world.manent.complete_chat.start(command).generated()
    context = await shown(world, generated.completion_id)
    assert context.dropped
    assert context.verdict is PromptVerdict.MATCHES
    texts = [message.text for message in (*context.dropped, *context.messages)]
    assert texts == ["one two three four", "a b", "five six seven", "a b", "eight"]


async def test_a_completion_without_a_session_is_shown_where_its_content_is_recorded() -> None:
    """With ``store``; otherwise there is nothing to show, and that is said."""
    world = world_of_two_models()
    stored = await world.manent.complete_chat.start(ask(user("one"), store_content=True)).generated()
    assert (await shown(world, stored.completion_id)).verdict is PromptVerdict.MATCHES
    bare = await world.manent.complete_chat.start(ask(user("one"))).generated()
    with pytest.raises(ContentNotRecorded, match="without its content"):
        await shown(world, bare.completion_id)


async def test_a_model_that_is_gone_leaves_the_messages() -> None:
    """The prompt cannot be rendered, and why is said."""
    world = world_of_two_models()
    generated = await talk(world, "one")
    world.engine._by_name.clear()
    context = await shown(world, generated.completion_id)
    assert (context.verdict, context.prompt) == (PromptVerdict.UNAVAILABLE, None)
    assert context.problem is not None
    assert context.problem.code == "model_not_found"
    assert [message.text for message in context.messages] == ["one"]


async def test_another_template_renders_another_prompt() -> None:
    """The digest does not match, and what changed is named."""
    world = world_of_two_models()
    generated = await talk(world, "one")
    explain = world.engine.explain

    async def differently(
        model_id: str, messages: Sequence[Message], *, shape: OutputShape | None = None
    ) -> ExplainedPrompt:
        explained = await explain(model_id, [*messages, user("more")], shape=shape)
        return replace(explained, made_by=replace(explained.made_by, template_digest="sha256:ff"))

    world.engine.explain = differently  # type: ignore[method-assign]  # a template that was changed since
    context = await shown(world, generated.completion_id)
    assert (context.verdict, context.changed) == (PromptVerdict.DIFFERS, ("template",))


async def test_contexts_are_private() -> None:
    """Another subject finds nothing, with or without a session; an auditor of the tenant does."""
    world = world_of_two_models()
    in_session = await talk(world, "one")
    alone = await world.manent.complete_chat.start(ask(user("one"), store_content=True)).generated()
    for completion_id in (in_session.completion_id, alone.completion_id):
        with pytest.raises(CompletionNotFound):
            await shown(world, completion_id, BOB)
    with pytest.raises(CompletionNotFound):
        await shown(world, "chatcmpl-nothing")
    for completion_id in (in_session.completion_id, alone.completion_id):
        assert (await shown(world, completion_id, AUDITOR)).verdict is PromptVerdict.MATCHES
