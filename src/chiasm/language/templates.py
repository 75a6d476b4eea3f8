"""Chat templates that a recipe may name, for language models whose tokenizers have none."""

ANSWER = "<|answer|>"  # of tokenizers trained here: ends what the user says
PLAIN = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'user' %}" + ANSWER + "{% elif message['role'] == 'assistant' %}{{ eos_token }}"
    "{% else %}{{ '\\n' }}{% endif %}{% endfor %}"
)
# The plain one, for models that call tools: `price(product)` declares one, and a call is an object as JSON.
CALL, RESULT = "<|call|>", "<|result|>"
TOOLS = (
    "{{ bos_token }}{% for tool in tools or [] %}{{ tool['function']['name'] }}"
    "({{ tool['function']['parameters']['properties'] | join(', ') }})\n{% endfor %}"
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ message['content'] }}" + ANSWER + ""
    "{% elif message['role'] == 'tool' %}" + RESULT + "{{ message['content'] }}" + ANSWER + ""
    "{% elif message['role'] == 'assistant' %}{{ message['content'] }}"
    "{% for call in message['tool_calls'] or [] %}" + CALL + ""
    "{{ {'name': call['function']['name'], 'arguments': call['function']['arguments']} | tojson }}{% endfor %}"
    "{{ eos_token }}{% else %}{{ message['content'] }}{{ '\n' }}{% endif %}{% endfor %}"
)
# Vicuna 1.1's, as LLaVA-1.5 has it.
VICUNA = (
    "{{ bos_token }}A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. {% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: {{ message['content'] }} "
    "{% elif message['role'] == 'assistant' %}ASSISTANT: {{ message['content'] }}{{ eos_token }}"
    "{% else %}{{ message['content'] }} {% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
# In words that base models know, as BLIP-2 and GVT ask.
QUESTION = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "Question: {{ message['content'] }} Answer:{% elif message['role'] == 'assistant' %} "
    "{{ message['content'] }}{{ eos_token }}{% else %}{{ message['content'] }} {% endif %}{% endfor %}"
)
# As captioners are trained: nothing asks. Words of a user stand between image and caption.
CAPTION = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ bos_token }}{{ message['content'] }}"
    "{{ eos_token }}{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ bos_token }}{% endif %}"
)
# An answer goes on directly behind what asks, as in tasks of completion.
CONTINUED = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
# Unified-IO 2's, for an encoder that reads the prompt: which modality is asked for stands before it. Where there is
# no prompt, the original asks for an image in these words.
_ENCODED = (
    "{{% for message in messages %}}{{% if message['role'] == 'user' %}}{user}"
    "{{% elif message['role'] == 'assistant' %}}{{{{ message['content'] }}}}{{{{ eos_token }}}}"
    "{{% else %}}{{{{ message['content'] }}}}{{% endif %}}{{% endfor %}}"
)
UNIFIED_IO = {
    "default": _ENCODED.format(user="[Text] [S]{{ message['content'] }}{{ eos_token }}{{ bos_token }}"),
    "draw": _ENCODED.format(
        user="[Image] [S]{{ message['content'] or 'An image of a random picture.' }}{{ eos_token }}"
    ),
}
NAMED: dict[str, str | dict[str, str]] = {
    "caption": CAPTION,
    "continued": CONTINUED,
    "plain": PLAIN,
    "question": QUESTION,
    "tools": TOOLS,
    "unified_io": UNIFIED_IO,
    "vicuna": VICUNA,
}
ADDED = {
    "plain": (ANSWER,),
    "tools": (ANSWER, CALL, RESULT),
    "unified_io": ("[Text] [S]", "[Image] [S]"),
}  # tokens that a template needs
