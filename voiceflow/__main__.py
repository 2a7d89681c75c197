"""`python -m voiceflow`: the same as the command `voiceflow`."""

from voiceflow.cli import main

main()
