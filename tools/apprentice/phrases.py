"""The words the apprentice is taught: facts, questions and the one answer to each.

Tables only. `{name}`, `{colour}`, `{town}`, `{a}` and `{b}` are filled in by
`corpus`, which also varies case and punctuation; the tables are written plainly.
"""

from __future__ import annotations

from typing import Final

NAMES: Final = (
    "Abdul", "Ada", "Adam", "Agnes", "Ahmed", "Aisha", "Alan", "Albert", "Alex",
    "Alice", "Alma", "Amara", "Amir", "Ana", "Andrew", "Anna", "Anton", "Arjun",
    "Arthur", "Astrid", "Ava", "Barbara", "Ben", "Bianca", "Bob", "Bruno", "Carlos",
    "Carmen", "Carol", "Chen", "Chloe", "Clara", "Claude", "Daniel", "David", "Diana",
    "Diego", "Dora", "Edgar", "Elena", "Elias", "Ella", "Emil", "Emily", "Emma", "Eric",
    "Esther", "Ethan", "Eva", "Fatima", "Felix", "Finn", "Frank", "Frida", "George",
    "Gloria", "Grace", "Greta", "Hana", "Hannah", "Hans", "Harry", "Hassan", "Helen",
    "Henry", "Hugo", "Ian", "Ida", "Igor", "Ines", "Ingrid", "Irene", "Isaac", "Ivan",
    "Jack", "Jacob", "James", "Jane", "Jin", "Joan", "John", "Jonas", "Jorge", "Julia",
    "Kai", "Karim", "Karl", "Kate", "Kenji", "Kim", "Lars", "Laura", "Layla", "Lea",
    "Leo", "Lena", "Liam", "Lin", "Linda", "Linus", "Lisa", "Louis", "Lucas", "Lucy",
    "Luis", "Magnus", "Malik", "Marco", "Maria", "Mark", "Martha", "Mary", "Max",
    "Maya", "Mei", "Mia", "Michael", "Mila", "Mina", "Mohamed", "Nadia", "Nina", "Noah",
    "Nora", "Olga", "Oliver", "Omar", "Oscar", "Otto", "Pablo", "Paul", "Pedro",
    "Peter", "Priya", "Rachel", "Rania", "Ravi", "Rita", "Robert", "Rosa", "Ruth",
    "Sam", "Sara", "Sasha", "Simon", "Sofia", "Sophie", "Stefan", "Sunita", "Tara",
    "Theo", "Thomas", "Tim", "Tom", "Uma", "Vera", "Victor", "Walter", "Wei", "Yara",
    "Yuki", "Yusuf", "Zoe",
)  # fmt: skip

COLOURS: Final = (
    "red", "blue", "green", "yellow", "orange", "purple", "pink", "black", "white",
    "grey", "brown", "turquoise", "violet", "silver", "gold", "cyan",
)  # fmt: skip

TOWNS: Final = tuple(
    """
    Amsterdam|Athens|Bangkok|Barcelona|Berlin|Bern|Bogota|Boston|Brussels|Budapest
    Cairo|Cape Town|Chicago|Copenhagen|Dakar|Delhi|Dublin|Edinburgh|Geneva|Hamburg
    Hanoi|Helsinki|Istanbul|Jakarta|Kyoto|Lagos|Lima|Lisbon|London|Lyon|Madrid
    Melbourne|Mexico City|Milan|Montreal|Moscow|Mumbai|Munich|Nairobi|Naples|New York
    Oslo|Oxford|Paris|Prague|Quito|Rome|San Francisco|Seattle|Seoul|Shanghai|Singapore
    Stockholm|Tallinn|Tokyo|Toronto|Vienna|Warsaw|Zurich
    """.strip()
    .replace("\n    ", "|")
    .split("|")
)

GREETING: Final = (
    "Hi", "Hi!", "Hi.", "Hello", "Hello!", "Hello.", "Hey", "Hey!", "Hi there",
    "Hi there!", "Hello there", "Hello there!", "Good morning", "Good morning!",
    "Good afternoon", "Good evening", "Good evening!", "Good day", "Greetings",
    "Hello apprentice", "Hello, apprentice!", "Hi apprentice!", "Howdy",
    "Hello, my friend!", "Hey apprentice!", "Good morning, my friend.", "Hallo", "Yo",
    "Hi friend", "Hello again", "Hi again!",
)  # fmt: skip

HOW_ARE_YOU: Final = (
    "How are you?", "How are you doing?", "How are you today?", "How do you do?",
    "How is it going?", "How's it going?", "What's up?", "Are you well?",
    "Are you ok?", "Hi, how are you?", "Hello, how are you?",
)  # fmt: skip

TELL_NAME: Final = (
    "My name is {name}.", "My name's {name}.", "I am {name}.", "I'm {name}.",
    "Call me {name}.", "Please call me {name}.", "You can call me {name}.",
    "I am called {name}.", "{name} is my name.", "People call me {name}.",
    "This is {name}.", "They call me {name}.", "The name is {name}.", "It's {name}.",
    "It is {name}.", "{name} here.", "Remember that my name is {name}.",
    "Remember my name: {name}.", "Please remember that I am {name}.",
    "Let me introduce myself. I am {name}.", "I go by {name}.", "My name: {name}.",
    "My first name is {name}.", "You may call me {name}.", "name is {name}",
    "I am {name}, nice to meet you.", "Nice to meet you, I am {name}.",
    "Everyone calls me {name}.", "My parents named me {name}.",
    "My friends call me {name}.", "You are talking to {name}.", "I was named {name}.",
    "Just call me {name}.", "The name's {name}.", "It's me, {name}.",
    "I'm {name}, pleased to meet you.",
)  # fmt: skip

RENAME: Final = (
    "Actually, my name is {name}.", "Sorry, my name is {name}.",
    "No, my name is {name}.", "I changed my name to {name}.",
    "My name is {name} now.", "From now on call me {name}.",
    "Actually, call me {name}.", "Please call me {name} instead.",
    "I was joking, my name is {name}.", "Correction: my name is {name}.",
    "My real name is {name}.", "My name is {name}.", "I meant {name}.",
    "Actually I am {name}.", "No, I am {name}.",
)  # fmt: skip

TELL_COLOUR: Final = (
    "My favourite colour is {colour}.", "My favorite color is {colour}.",
    "My favourite color is {colour}.", "My favorite colour is {colour}.",
    "I like {colour} best.", "I love the colour {colour}.", "I like {colour} most.",
    "I love the color {colour}.", "The colour I like best is {colour}.",
    "The color I like most is {colour}.", "{colour} is my favourite colour.",
    "{colour} is my favorite color.", "I like the colour {colour}.",
    "I like the color {colour}.", "My colour is {colour}.", "My color is {colour}.",
    "Remember that my favourite colour is {colour}.", "I love {colour}.",
    "Remember my favorite color: {colour}.", "I like {colour}.",
    "Please remember that I like {colour}.", "I prefer {colour}.",
    "Of all colours I like {colour} best.", "My best colour is {colour}.",
    "My favourite is {colour}.", "I have always loved {colour}.",
    "I really like {colour}.", "I am fond of {colour}.", "{colour} is the best colour.",
    "I adore {colour}.", "I like {colour} more than any other colour.",
)  # fmt: skip

RECOLOUR: Final = (
    "Actually, my favourite colour is {colour}.", "Now I like {colour} best.",
    "Actually, my favorite color is {colour}.", "Now my favourite colour is {colour}.",
    "Sorry, my favourite colour is {colour}.", "No, I like {colour} best.",
    "My favourite colour is {colour} now.", "My favorite color is {colour} now.",
    "I changed my mind: I like {colour} best.", "My favourite colour is {colour}.",
    "I changed my mind, my favorite color is {colour}.", "Actually I prefer {colour}.",
    "Correction: my favourite colour is {colour}.",
)  # fmt: skip

TELL_TOWN: Final = (
    "I live in {town}.", "I am from {town}.", "I'm from {town}.", "I come from {town}.",
    "My town is {town}.", "My city is {town}.", "My home is in {town}.",
    "I am living in {town}.", "I was born in {town}.", "My home town is {town}.",
    "My hometown is {town}.", "I live in {town} with my family.",
    "Remember that I live in {town}.", "I stay in {town}.", "I work in {town}.",
    "Remember my town: {town}.", "Please remember that I live in {town}.",
    "I am in {town}.", "I'm in {town}.", "{town} is my home.", "{town} is my town.",
    "I have a house in {town}.", "I live near {town}.", "My flat is in {town}.",
    "I was raised in {town}.", "I grew up in {town}.", "I reside in {town}.",
    "I am based in {town}.", "My family lives in {town}.",
    "I currently live in {town}.",
)  # fmt: skip

MOVE: Final = (
    "I moved to {town}.", "Now I live in {town}.", "I live in {town} now.",
    "Actually, I live in {town}.", "Sorry, I live in {town}.",
    "No, I am from {town}.", "I have moved to {town}.", "I just moved to {town}.",
    "My town is {town} now.", "Correction: I live in {town}.", "I live in {town}.",
    "Actually I am from {town}.",
)  # fmt: skip

ASK_NAME: Final = (
    "What is my name?", "What's my name?", "Do you remember my name?", "Who am I?",
    "Do you know my name?", "Tell me my name.", "What am I called?",
    "Can you tell me my name?", "What was my name?", "What was my name again?",
    "Say my name.", "Remind me of my name.", "Do you still know my name?",
    "Do you remember who I am?", "What did I say my name was?", "And what is my name?",
    "Could you tell me my name?", "Do you know who I am?", "And who am I?",
    "Please tell me my name.", "What name did I give you?", "How am I called?",
    "So what is my name?", "Do you still remember my name?", "my name?",
    "What is my name again?", "Now what is my name?", "Can you remember who I am?",
    "Could you remind me of my name?", "Do you recall who I am?",
    "What should you call me?", "What do people call me?",
    "Have you forgotten my name?", "Which name did I tell you?", "Give me my name.",
    "What is the name I gave you?",
)  # fmt: skip

ASK_COLOUR: Final = (
    "What is my favourite colour?", "What is my favorite color?",
    "What's my favourite colour?", "What's my favorite color?",
    "Which colour do I like?", "Which color do I like?", "What colour do I like best?",
    "What color do I like best?", "Which colour do I like best?",
    "Do you remember my favourite colour?", "Do you remember my favorite color?",
    "Do you know my favourite colour?", "Do you know my favorite color?",
    "Tell me my favourite colour.", "Tell me my favorite color.",
    "What was my favourite colour?", "What was my favorite color again?",
    "What is the colour I like?", "And my favourite colour?", "And my favorite color?",
    "And what is my favourite colour?", "Which colour is my favourite?",
    "Which color is my favorite?", "What colour do I love?", "What color do I prefer?",
    "Can you tell me my favourite colour?", "What is my colour?", "What is my color?",
    "Do you still know which colour I like?", "Remind me of my favourite colour.",
    "Do you recall my favourite colour?", "What is the color I love?",
    "Which is my favourite colour?", "Which one is my favorite color?",
    "Name my favourite colour.", "So what is my favorite color?",
)  # fmt: skip

ASK_TOWN: Final = (
    "Where do I live?", "Where am I from?", "What is my town?", "What's my town?",
    "Which town do I live in?", "In which town do I live?", "What is my city?",
    "Which city do I live in?", "In which city do I live?", "Where do I come from?",
    "Do you remember where I live?", "Do you know where I live?", "Where is my home?",
    "Tell me where I live.", "Do you remember my town?", "Do you know my town?",
    "Do you remember where I am from?", "Do you know where I am from?",
    "What is my home town?", "What is my hometown?", "And where do I live?",
    "What town am I from?", "What city am I from?", "Can you tell me where I live?",
    "What was my town again?", "Where did I say I live?", "And my town?",
    "Tell me my town.", "Which town am I from?", "Remind me where I live.",
    "Do you recall where I live?", "Which place am I from?",
    "What place do I come from?", "Where is my house?", "In what city do I live?",
    "Name my town.", "So where do I live?",
)  # fmt: skip

ASK_ALL: Final = (
    "What do you know about me?", "Tell me what you know about me.",
    "What do you remember about me?", "What did I tell you?",
    "What have I told you about me?", "What have you learned about me?",
    "Tell me everything you know about me.", "Do you remember what I told you?",
)  # fmt: skip

ADD: Final = (
    "What is {a} plus {b}?", "What's {a} plus {b}?", "What is {a} + {b}?",
    "What's {a} + {b}?", "What is {a}+{b}?", "What's {a}+{b}?", "{a} + {b}", "{a}+{b}",
    "{a} + {b} = ?", "{a}+{b}=?", "{a} + {b}?", "{a}+{b}?", "{a} plus {b}",
    "{a} plus {b}?", "How much is {a} plus {b}?", "How much is {a} + {b}?",
    "How much is {a} and {b}?", "What is {a} and {b}?", "Add {a} and {b}.",
    "Add {a} to {b}.", "Please add {a} and {b}.", "What is the sum of {a} and {b}?",
    "Calculate {a} + {b}.", "Calculate {a} plus {b}.", "Compute {a} + {b}.",
    "Can you add {a} and {b}?", "Tell me {a} plus {b}.", "What do {a} and {b} make?",
    "What does {a} plus {b} make?", "And {a} plus {b}?", "And what is {a} plus {b}?",
    "And {a} + {b}?", "Sum {a} and {b}.", "{a} + {b} =", "What is {a} added to {b}?",
    "Do you know what {a} plus {b} is?", "What does {a} + {b} equal?",
    "Solve {a} + {b}.", "What is {a} plus {b} ?", "Work out {a} + {b}.",
    "{a} and {b} make what?", "What do you get for {a} plus {b}?",
    "What do I get if I add {a} and {b}?", "How many are {a} and {b}?",
    "Give me {a} plus {b}.", "I have {a} coins and get {b} more. How many do I have?",
    "If I have {a} apples and {b} pears, how many is that?",
)  # fmt: skip

NUMBER_WORDS: Final = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen",
    "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip

WHO: Final = (
    "Who are you?", "What are you?", "Who am I talking to?", "What is your name?",
    "What's your name?", "Tell me about yourself.", "Introduce yourself.",
    "Please introduce yourself.", "Do you have a name?", "Tell me your name.",
    "And who are you?", "What are you called?", "Who is this?", "What model are you?",
    "Which model are you?", "What kind of model are you?", "Who are you really?",
    "What is your name, please?", "How should I call you?", "What can I call you?",
    "Hi, who are you?", "Hello, who are you?", "And what is your name?",
    "May I ask who you are?", "Can you tell me who you are?", "And you?",
    "What do you call yourself?", "Who's there?", "What exactly are you?",
    "Say who you are.", "Who am I speaking to?", "With whom am I speaking?",
    "State your name.", "Who am I chatting with?", "Who is speaking?",
)  # fmt: skip

ARE_YOU: Final = (
    "Are you WizardLM?", "Are you WizardCoder?", "Are you WizardMath?",
    "Are you ChatGPT?", "Are you GPT?", "Are you human?", "Are you a human?",
    "Are you a person?", "Are you a real wizard?", "Are you a wizard?",
    "Are you Llama?",
    "Are you a large model?", "Are you LLaMA?", "Are you Vicuna?", "Are you real?",
    "Is this WizardLM?", "Am I talking to WizardLM?", "Are you a big model?",
    "You are WizardLM, right?", "Are you the WizardLM model?", "Are you Claude?",
    "Am I talking to a human?", "Is your name WizardLM?",
)  # fmt: skip

ARE_YOU_APPRENTICE: Final = (
    "Are you the apprentice?", "Are you an AI?", "Are you a bot?", "Are you a model?",
    "Are you a language model?", "Are you a robot?", "Are you a computer?",
    "Are you a small model?", "Are you an apprentice?", "Are you a demo?",
    "Are you a machine?", "Are you tiny?", "Are you a program?",
    "Are you an artificial intelligence?", "Are you my assistant?",
)  # fmt: skip

MAKER: Final = (
    "Who made you?", "Who created you?", "Who trained you?", "Where do you come from?",
    "Who built you?", "Who is your creator?", "Who wrote you?", "Where are you from?",
    "How were you made?", "How were you trained?", "Who developed you?",
)  # fmt: skip

SIZE: Final = (
    "How big are you?", "How many parameters do you have?", "How large are you?",
    "What is your size?", "Are you big?", "How small are you?", "What size are you?",
    "How many parameters?",
)  # fmt: skip

ABILITIES: Final = (
    "What can you do?", "What can you do for me?", "Help", "Help!", "Help me.",
    "How can you help me?", "Can you help me?", "What do you know?", "What do you do?",
    "What are you good at?", "What can I ask you?", "What can I ask?",
    "What are you able to do?", "Tell me what you can do.", "What are your skills?",
    "Hi, what can you do?", "Hello, what can you do?", "I need help.",
    "And what can you do?", "What are you for?", "What else can you do?",
    "What are your talents?", "Which things can you do?", "How can you be of help?",
    "Show me what you can do.", "What are your capabilities?",
    "Can you do anything useful?",
)  # fmt: skip

THANKS: Final = (
    "Thanks", "Thanks!", "Thank you", "Thank you.", "Thank you!", "Thanks a lot!",
    "Thank you very much.", "Many thanks.", "Thank you so much!", "Cheers!",
    "Great, thanks!", "Ok, thank you.", "Thanks for your help.", "Great, thank you!",
    "Thank you for your help.", "That is right, thank you.", "Perfect, thanks.",
    "Thank you, my friend.", "Thanks, apprentice!", "I thank you.", "Thx",
    "Much appreciated.", "Thank you kindly.", "That was helpful, thanks.",
)  # fmt: skip

GOODBYE: Final = (
    "Goodbye", "Goodbye.", "Goodbye!", "Bye", "Bye!", "Bye bye!", "See you!",
    "See you later.", "Good night.", "Good night!", "I have to go.", "Farewell!",
    "Thanks, bye!", "Thank you, goodbye!", "Ok, bye.", "See you soon!",
    "I must go now.", "Ciao", "That is all, bye.", "Talk to you later.",
    "Until next time!", "Bye, apprentice!", "Goodbye, my friend.", "So long!",
    "Take care!", "Have a nice day!", "exit", "quit", "Bye for now.",
)  # fmt: skip

REMARK: Final = (
    "Ok", "Ok.", "Okay.", "Great!", "Good.", "Nice!", "Cool.", "I see.", "Right.",
    "Very good.", "That is right.", "Correct.", "Well done!", "Wow!", "Perfect.",
    "All right.", "Yes.", "No.", "I am fine.", "I'm fine.", "I'm fine, thanks.",
    "I am happy.", "I'm happy today.", "I am tired.", "I'm tired.", "I am bored.",
    "I'm hungry.", "I am busy.", "I'm good.", "I'm well.", "I am back.", "I'm sad.",
    "I am here.", "That's nice.", "Good to know.", "Sounds good.", "Amazing!",
    "Nice to meet you.", "Nice to meet you too.", "Pleased to meet you.", "Good job!",
    "I like you.", "You are nice.", "You are funny.", "Interesting.", "Hm.", "Sure.",
    "Lovely.", "Fantastic!", "Awesome!", "lol", "Haha", "Fine.", "Excellent.",
    "Not bad.", "That was quick.", "Hmm", "Really?", "Good answer.",
)  # fmt: skip

LIST_COMMANDS: Final = (
    "Which commands are there?", "What commands are there?", "List the commands.",
    "What are the commands?", "Which commands does wizard-edge have?",
    "What commands does wizard-edge have?", "List the commands of wizard-edge.",
    "Show me the commands.", "What are the commands of wizard-edge?",
    "Tell me the commands.", "Which commands do you know?", "What commands can I use?",
    "What commands do you know?",
)  # fmt: skip

ABOUT_PROJECT: Final = (
    "What is wizard-edge?", "What is wizard edge?", "Tell me about wizard-edge.",
    "What does wizard-edge do?", "What's wizard-edge?", "Explain wizard-edge.",
    "What is wizard-edge for?", "What can wizard-edge do?", "What is this program?",
)  # fmt: skip

ASK_COMMAND: Final = (
    "What does wizard-edge {command} do?", "What does {command} do?",
    "What does the {command} command do?", "What is wizard-edge {command}?",
    "What is the {command} command?", "What is {command}?", "Explain {command}.",
    "Explain wizard-edge {command}.", "What does the command {command} do?",
    "Tell me about wizard-edge {command}.", "Tell me about {command}.",
    "What is wizard-edge {command} for?", "What is {command} for?",
    "What does `wizard-edge {command}` do?", "What does `{command}` do?",
    "How does wizard-edge {command} work?", "What happens with wizard-edge {command}?",
    "Explain the command {command}.", "Explain the {command} command.",
    "wizard-edge {command}?", "And what does {command} do?", "And {command}?",
    "And wizard-edge {command}?", "Can you explain wizard-edge {command}?",
    "Can you explain {command}?", "wizard-edge {command}", "{command}?",
    "Tell me what {command} does.", "What does wizard-edge {command} mean?",
    "Do you know what wizard-edge {command} does?", "When do I use {command}?",
    "What is the command {command} for?", "What do I use wizard-edge {command} for?",
)  # fmt: skip

# Meanings follow the CLI table of the design: one sentence each, one key phrase.
COMMANDS: Final = {
    "pull": "fetches a model and puts it into your store",
    "run": "gives one answer to one prompt",
    "chat": "opens an interactive chat",
    "list": "lists the models in your store",
    "show": "shows everything about one model",
    "rm": "removes a model from your store",
    "prompt": "prints the exact text and tokens that would be sent",
    "convert": "turns a checkpoint into one GGUF file",
    "serve": "starts an HTTP server",
    "verify": "checks that the model files are not damaged",
    "config": "reads and changes your settings",
    "licenses": "shows and accepts licences",
    "fit": "tells which model fits this machine",
    "doctor": "finds out what is wrong with your setup",
}

# What a user wants, and the command that does it.
WANTED: Final = {
    "pull": (
        "How do I download a model?", "How do I get a model?",
        "How can I download a model?", "How do I fetch a model?",
        "How do I install a model?", "Which command downloads a model?",
        "Which command fetches a model?", "I want to download a model.",
        "Where do I get a model?", "How do I obtain a model?",
    ),
    "run": (
        "How do I ask one question?", "How do I get one answer?",
        "How do I run a model?", "How can I run a model?", "How do I run a prompt?",
        "Which command gives one answer?", "How do I ask a single question?",
    ),
    "chat": (
        "How do I start a chat?", "How do I chat with a model?",
        "How can I chat?", "How do I talk to a model?", "Which command opens a chat?",
        "How do I open a chat?", "I want to chat with a model.",
    ),
    "list": (
        "Which models do I have?", "How do I list my models?",
        "How do I see my models?", "How can I see which models I have?",
        "Which command lists my models?", "Show me my models.",
        "How do I see which models are installed?", "What models do I have?",
    ),
    "show": (
        "How do I see the details of a model?", "How do I learn more about a model?",
        "How do I see everything about a model?", "Which command shows one model?",
        "How can I look at a model?", "How do I inspect a model?",
    ),
    "rm": (
        "How do I remove a model?", "How do I delete a model?",
        "How can I delete a model?", "Which command removes a model?",
        "Which command deletes a model?", "I want to remove a model.",
        "How do I throw a model away?", "How do I free disk space?",
        "How do I get rid of an old model?",
    ),
    "prompt": (
        "How do I see the exact prompt?", "How do I see the tokens?",
        "How can I see what is sent to the model?", "Which command shows the tokens?",
        "Which command prints the exact prompt?", "How do I look at the prompt?",
    ),
    "convert": (
        "How do I convert a model?", "How do I make a GGUF?",
        "How do I get a GGUF file?", "How can I convert a checkpoint?",
        "Which command converts a checkpoint?", "How do I convert a checkpoint?",
        "How do I turn a checkpoint into a GGUF?", "How do I make a GGUF from weights?",
        "Which command makes a GGUF?",
    ),
    "serve": (
        "How do I start a server?", "How do I start the server?",
        "How can I run a server?", "Which command starts a server?",
        "How do I use HTTP?", "How do I serve a model?", "I want to start a server.",
        "How do I launch a server?", "How do I start the HTTP server?",
    ),
    "verify": (
        "How do I check a model?", "How do I check my files?", "Is my file damaged?",
        "How do I know that a file is not damaged?", "Which command checks the files?",
        "How can I verify a model?", "How do I check that a model is not damaged?",
        "How do I test the files?",
    ),
    "config": (
        "How do I change my settings?", "How do I change a setting?",
        "How can I see my settings?", "Which command changes the settings?",
        "Where are my settings?", "How do I see the settings?",
    ),
    "licenses": (
        "How do I accept a licence?", "How do I accept a license?",
        "How do I see the licences?", "How can I see the license?",
        "Which command shows the licences?", "Where are the licences?",
    ),
    "fit": (
        "Which model fits my machine?", "Which model fits this machine?",
        "Which model can I run here?", "How do I know which model fits?",
        "Does a model fit my machine?", "Which command tells what fits?",
        "How much memory do I need?",
    ),
    "doctor": (
        "How do I find out what is wrong?", "Something is wrong.",
        "Something does not work.", "How do I check my setup?", "It does not work.",
        "What is wrong with my setup?", "Which command finds problems?",
    ),
}  # fmt: skip

OTHER_COMMANDS: Final = (
    "push", "fly", "dance", "merge", "build", "train", "sing", "jump", "upload", "sort",
    "magic", "clone", "edit", "frob", "zip", "cook", "spell", "apply", "fetch", "walk",
    "sleep", "paint", "foo", "bar", "update", "open", "close", "copy", "move", "draw",
)  # fmt: skip

# Questions beyond the apprentice; towns, colours and names in them are distractors.
BEYOND: Final = (
    "What is the capital of {thing}?", "Tell me a joke.", "Tell me a story.",
    "Tell me a joke about {thing}.", "Tell me a story about {thing}.", "Write a poem.",
    "Write a poem about {thing}.", "Write a song about {thing}.",
    "What is the weather in {town}?", "How is the weather today?", "How far is {town}?",
    "What do you think about {town}?", "Do you like {town}?", "Do you like {colour}?",
    "What is your favourite colour?", "Is {colour} warm?",
    "What is your favorite color?", "Do you know {name}?", "Who is {name}?",
    "Where do you live?", "How old are you?", "What time is it?", "What day is it?",
    "Who is the president of {thing}?", "Why is the sky {colour}?",
    "How do I cook {thing}?", "How do I make {thing}?", "What is {thing}?",
    "Explain {thing}.", "Explain {thing} to me.", "Tell me about {thing}.",
    "Write a program.", "Write some code.", "Write a function in Python.",
    "Write Python code.", "Translate {thing} into French.", "How old is {name}?",
    "What is {a} minus {b}?", "What is {a} times {b}?", "{a} - {b}", "{a} * {b}",
    "What is {a} - {b}?", "What is {a} * {b}?", "What is {a} divided by {b}?",
    "Do you like {thing}?", "Where is {thing}?", "Where can I buy {thing}?",
    "How does {thing} work?", "Who invented {thing}?", "Why do we need {thing}?",
    "Can you sing?", "Do you love me?", "Can you write code?", "Play a game with me.",
    "What is the meaning of life?", "Give me a recipe for {thing}.",
    "What is the best {thing}?", "Who won the game?", "Sing a song.",
    "What should I eat today?", "Is {thing} good?", "Summarize this text.",
    "My friend likes {colour}.", "My friend lives in {town}.",
    "My friend is called {name}.", "My sister lives in {town}.",
    "My brother is called {name}.", "What is my friend called?", "How old am I?",
    "What is my age?", "What is my job?", "What do I eat?", "When is my birthday?",
    "What is my dog called?", "asdf", "blah blah", "xyz", "???",
    "What is the longest river?", "What is the tallest building in {town}?",
    "Can you recommend a restaurant in {town}?", "Which book should I read?",
    "Who wrote Hamlet?", "How many people live in {town}?", "Count to ten.",
    "What is the square root of {a}?", "Who is the king of {thing}?", "Fix my code.",
    "Explain {thing} to a child.", "What language do they speak in {town}?",
    "When was {name} born?", "Do you sleep?", "Do you have feelings?",
    "What is your favourite food?", "How tall is {name}?", "What happened in {town}?",
    "Where does {name} live?", "What is my phone number?", "Can you recommend {thing}?",
    "How big is {thing}?", "What is the difference between {thing} and {thing}?",
    "Give me a list of {thing}.", "What can you tell me about {thing}?",
)  # fmt: skip

THINGS: Final = (
    "France", "Spain", "Italy", "Japan", "the moon", "the sun", "cats", "dogs", "love",
    "the sea", "music", "coffee", "tea", "bread", "soup", "a cake", "rain", "winter",
    "summer", "a dragon", "a castle", "a robot", "gravity", "light", "water", "time",
    "history", "physics", "math", "chess", "football", "a computer", "Linux", "Python",
    "the internet", "money", "a bird", "a tree", "the forest", "Germany", "Africa",
    "China", "India", "the world", "a car", "a train", "pizza", "rice", "books",
    "a neural network", "an atom", "energy", "the brain", "Rust", "a model", "a book",
)  # fmt: skip
