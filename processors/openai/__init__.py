"""Language models that speak OpenAI's chat completions. `from processors.openai import ChatLLM`."""

from processors.openai.llm import ChatLLM
from processors.openai.model import Model

__all__ = ["ChatLLM", "Model"]
