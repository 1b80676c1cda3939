import sys

from serving.agent.main import main

sys.exit(main())
