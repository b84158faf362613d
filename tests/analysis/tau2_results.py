"""A τ²-bench result file made by hand."""

from typing import Any


def result_file() -> dict[str, Any]:
    """A τ²-bench result file with every kind of message, check and ending."""
    policy = "# Policy\nNever refund."
    tool = {"name": "get_user", "doc": "Look a user up.", "params": {"type": "object"}, "returns": None}
    info = {
        "git_commit": "abc",
        "num_trials": 2,
        "max_steps": 100,
        "max_errors": 10,
        "user_info": {
            "implementation": "user_simulator",
            "llm": "u",
            "llm_args": {"api_key": "sk-1", "temperature": 0.0},
        },
        "agent_info": {
            "implementation": "llm_agent",
            "llm": "a",
            "llm_args": {"max_tokens": 9, "extra": [{"Authorization": "Bearer sk-2", "n": 1}]},
        },
        "environment_info": {"domain_name": "mock", "policy": policy, "tool_defs": {"get_user": tool}},
        "seed": 300,
    }
    messages = [
        {"role": "assistant", "content": "Hi", "tool_calls": None, "turn_idx": 0, "timestamp": "t", "cost": 0.0},
        {"role": "user", "content": "Two users, please.", "tool_calls": None, "turn_idx": 1, "usage": {"n": 3}},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "name": "get_user", "arguments": {"user_id": "u_1"}, "requestor": "assistant"},
                {"id": "c2", "name": "get_user", "arguments": {"user_id": "u_2"}, "requestor": "assistant"},
            ],
            "raw_data": {"api_key": "sk-3", "model": "a"},
        },
        {
            "role": "tool",
            "tool_messages": [
                {"id": "c1", "role": "tool", "content": '{"name": "Ann"}', "requestor": "assistant", "error": False},
                {"id": "c2", "role": "tool", "content": "Error: no such user", "requestor": "assistant", "error": True},
            ],
        },
        {
            "role": "user",
            "content": None,
            "tool_calls": [{"id": "d1", "name": "toggle", "arguments": {}, "requestor": "user"}],
        },
        {"id": "d1", "role": "tool", "content": "on", "requestor": "user", "error": False, "turn_idx": 4},
        {"role": "user", "content": "###STOP###", "tool_calls": None},
    ]
    reward = {
        "reward": 1.0,
        "db_check": {"db_match": True, "db_reward": 1.0},
        "env_assertions": [{"env_assertion": {"func_name": "is_on"}, "met": True, "reward": 1.0}],
        "action_checks": [{"action": {"name": "get_user"}, "action_match": False, "action_reward": 0.0}],
        "nl_assertions": None,
        "communicate_checks": [{"info": "Ann", "met": True, "justification": "said"}],
        "reward_basis": ["DB", "COMMUNICATE"],
        "reward_breakdown": {"DB": 1.0, "COMMUNICATE": 1.0},
        "info": None,
    }
    whole = {
        "id": "s0",
        "task_id": "task_1",
        "timestamp": "t",
        "start_time": "a",
        "end_time": "b",
        "duration": 3.5,
        "termination_reason": "user_stop",
        "agent_cost": 0.1,
        "user_cost": None,
        "reward_info": reward,
        "messages": messages,
        "trial": 0,
        "seed": 42,
        "skipped": False,
    }
    early = {"reward": 0.0, "reward_basis": None, "info": {"note": "Simulation terminated prematurely."}}
    endings = [
        {**whole, "id": "s1", "trial": 1, "termination_reason": "max_steps", "reward_info": early},
        {
            **whole,
            "id": "s2",
            "trial": None,
            "seed": None,
            "termination_reason": "too_many_errors",
            "reward_info": early,
        },
        {**whole, "id": "s3", "termination_reason": "user_error", "reward_info": early},
        {**whole, "id": "s4", "reward_info": None, "termination_reason": "agent_error"},
        {**whole, "id": "s5", "skipped": True, "reward_info": early},
    ]
    tasks = [{"id": "never_run", "user_scenario": {}}, {"id": "task_1", "user_scenario": {"instructions": "…"}}]
    return {"timestamp": "t", "info": info, "tasks": tasks, "simulations": [whole, *endings]}


def spoken_results() -> dict[str, Any]:
    """The same file of a voice run: what was said is in ticks."""
    results = result_file()
    call = {"id": "c1", "name": "get_user", "arguments": {"user_id": "u_1"}, "requestor": "assistant"}
    answer = {"id": "c1", "role": "tool", "content": '{"name": "Ann"}', "requestor": "assistant", "error": False}
    ticks = [
        {"tick_id": 0, "timestamp": "0", "agent_chunk": {"role": "assistant", "content": "Hi", "timestamp": "0"}},
        {"tick_id": 1, "timestamp": "1", "user_chunk": {"role": "user", "content": "Who am I?", "timestamp": "1"}},
        {"tick_id": 2, "timestamp": "2", "agent_tool_calls": [call], "agent_tool_results": [answer]},
        {"tick_id": 3, "timestamp": "3", "agent_chunk": {"role": "assistant", "content": "Ann", "timestamp": "3"}},
    ]
    for simulation in results["simulations"]:
        simulation.update(messages=None, ticks=ticks)
    return results
